package hold

import (
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// validation is the validation of records that a client requests.
type validation int

const (
	validateKnown validation = iota // by default: records of collections with a known schema
	validateAll                     // "validate": true: other collections are refused
	validateNone                    // "validate": false
)

func validationOf(c *xrpc.Call) validation {
	validate, given := c.Input["validate"].(bool)
	switch {
	case !given:
		return validateKnown
	case validate:
		return validateAll
	default:
		return validateNone
	}
}

// encode validates a record and returns its canonical form. A missing $type is
// added. The status is empty if the record was not validated.
func (v validation) encode(collection, rkey string, record map[string]any) (cbor []byte, status string, err error) {
	switch given, ok := record["$type"]; {
	case !ok:
		record["$type"] = collection
	case given != collection:
		return nil, "", xrpc.InvalidRequest("Invalid $type: expected %s, got %.80v", collection, given)
	}
	if id, found := lexicon.LegacyBlob(record); found {
		return nil, "", xrpc.InvalidRequest("Legacy blobs are not allowed (%s)", id)
	}
	if v != validateNone {
		if status, err = v.validate(collection, rkey, record); err != nil {
			return nil, "", err
		}
	}
	if cbor, err = lexicon.Marshal(record); err != nil {
		return nil, "", xrpc.InvalidRequest("Invalid record: %v", err)
	}
	return cbor, status, nil
}

func (v validation) validate(collection, rkey string, record map[string]any) (status string, err error) {
	if status, err = lexicon.ValidateRecord(collection, record); err != nil {
		return "", xrpc.InvalidRequest("%v", err)
	}
	if status == lexicon.StatusUnknown && v == validateAll {
		return "", xrpc.InvalidRequest("Unknown lexicon type: %s", collection)
	}
	if err := lexicon.ValidateKey(collection, rkey); err != nil {
		return "", xrpc.InvalidRequest("%v", err)
	}
	return status, nil
}

// newKey returns a record key for a record whose client gave none.
func (s *Server) newKey() string { return s.tids.Next().String() }

func (s *Server) uri(collection, rkey string) string {
	return fmt.Sprintf("at://%s/%s/%s", s.id.DID, collection, rkey)
}
