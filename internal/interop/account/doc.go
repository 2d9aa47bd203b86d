// Package account pushes images with a client by others to a registry that publishes to an
// account on the reference PDS, and reads the account as a follower does. Another registry
// reports to a hold with the tokens of the account.
//
//	TIDINGS_INTEROP=1 go test ./internal/interop/account
//
// It needs the packages of testdata/interop: make interop installs them. Without
// TIDINGS_INTEROP the test is skipped.
package account
