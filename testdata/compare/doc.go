// Package compare sends the same requests to the hold and to the reference
// PDS and compares the answers: status, error name, the shape of the body,
// and whether the repository has a new head. Each row also says which answer
// is right, so that a reference that changes is noticed too.
//
//	go test ./testdata/compare            installs the reference first, see testdata/reference-pds
//	go test ./testdata/compare -v         also shows where only the wording differs
//	go test ./testdata/compare -run 'TestCompare/applyWrites'
//
// TestMove has an account of the hold go on at the reference, and come back.
//
// Where the hold answers otherwise on purpose, the row says what and why.
package compare
