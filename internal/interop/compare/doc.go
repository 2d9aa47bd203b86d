// Package compare sends the same requests to the hold and to the reference PDS and
// compares the responses: status, error name, the shape of the body, and whether the
// head of the repo changes. Each row has the expected response, so that changes
// of the reference are detected as well. If the hold differs on purpose, the row has its
// response and the reason.
//
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare       installs the reference PDS first, see testdata/reference-pds
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare -v    also logs messages that differ in their wording only
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare -run TestCompare/applyWrites
//
// Without TIDINGS_INTEROP the tests are skipped.
//
// TestMove moves an account of the hold to the reference and back.
package compare
