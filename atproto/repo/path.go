package repo

import (
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// ValidPath checks that collection is an NSID and rkey a record key, by
// https://atproto.com/specs/nsid and https://atproto.com/specs/record-key.
// Its error wraps ErrBadKey.
func ValidPath(collection, rkey string) error {
	if err := validCollection(collection); err != nil {
		return err
	}
	if err := lexicon.CheckRecordKey(rkey); err != nil {
		return fmt.Errorf("%w: %q is not a record key: %w", ErrBadKey, rkey, err)
	}
	return nil
}

func validCollection(collection string) error {
	if err := lexicon.CheckNSID(collection); err != nil {
		return fmt.Errorf("%w: %q is not a collection: %w", ErrBadKey, collection, err)
	}
	return nil
}
