package mst

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// ErrPath is the error of CheckPath and CheckCollection.
var ErrPath = errors.New("invalid record path")

// CheckPath checks that collection is an NSID and rkey a record key, by
// https://atproto.com/specs/nsid and https://atproto.com/specs/record-key.
func CheckPath(collection, rkey string) error {
	if err := CheckCollection(collection); err != nil {
		return err
	}
	if err := lexicon.CheckRecordKey(rkey); err != nil {
		return fmt.Errorf("%w: invalid record key %q: %w", ErrPath, rkey, err)
	}
	return nil
}

// CheckCollection checks that collection is an NSID.
func CheckCollection(collection string) error {
	if err := lexicon.CheckNSID(collection); err != nil {
		return fmt.Errorf("%w: invalid collection %q: %w", ErrPath, collection, err)
	}
	return nil
}

// JoinPath returns the path of a record.
func JoinPath(collection, rkey string) string { return collection + "/" + rkey }

// SplitPath is the inverse of JoinPath.
func SplitPath(path string) (collection, rkey string) {
	collection, rkey, _ = strings.Cut(path, "/")
	return collection, rkey
}
