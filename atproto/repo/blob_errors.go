package repo

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

var (
	ErrBlobNotFound = errors.New("blob not found")
	ErrBlobType     = errors.New("blob is of another media type")
	ErrBlobSize     = errors.New("blob is of another size")

	// ErrBadRecord: bytes that are not canonical DAG-CBOR of the data model.
	ErrBadRecord = errors.New("not a record")
)

// BlobError says which blob a record refers to in vain. In a call of several
// writes it is inside a *WriteError.
type BlobError struct {
	CID       cid.Cid
	Err       error  // ErrBlobNotFound, ErrBlobType or ErrBlobSize
	Want, Got string // the stored type or size, and the record's
}

func (e *BlobError) Error() string {
	if e.Want == "" && e.Got == "" {
		return fmt.Sprintf("%v: %s", e.Err, e.CID)
	}
	return fmt.Sprintf("%v: %s is %s, the record says %s", e.Err, e.CID, e.Want, e.Got)
}

func (e *BlobError) Unwrap() error { return e.Err }
