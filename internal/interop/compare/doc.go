// Package compare sends the same requests to the hold and to the reference
// PDS and compares the answers: status, error name, the shape of the body,
// and whether the repository has a new head. Each row also says which answer
// is right, so that a reference that changes is noticed too.
//
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare       installs the reference PDS first, see testdata/reference-pds
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare -v    also logs messages that differ in their wording only
//	TIDINGS_INTEROP=1 go test ./internal/interop/compare -run TestCompare/applyWrites
//
// Without TIDINGS_INTEROP the tests are skipped.
//
// TestMove has an account of the hold go on at the reference, and come back.
//
// Where the hold answers otherwise on purpose, the row says what and why.
package compare
