package lexicon

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// What Validate says of a record, in the words of com.atproto.repo's
// validationStatus.
const (
	StatusValid   = "valid"
	StatusUnknown = "unknown" // no schema here for this collection
)

// Validate holds a record's DAG-CBOR against its collection's schema. An
// error means the schema is known and the record breaks it.
func Validate(collection string, cbor []byte) (status string, err error) {
	object, err := Unmarshal(cbor)
	if err != nil {
		return "", err
	}
	return ValidateRecord(collection, object)
}

// ValidateRecord is Validate for a record as Unmarshal gives it.
func ValidateRecord(collection string, object map[string]any) (status string, err error) {
	return schemas().validate(collection, object)
}

func (c catalog) validate(collection string, object map[string]any) (status string, err error) {
	def, known := c.record(collection)
	if !known {
		return StatusUnknown, nil
	}
	if object["$type"] != collection {
		return "", fmt.Errorf("invalid %s record: its $type is not %s", collection, collection)
	}
	if err := c.check(def.Record, collection, object, "$"); err != nil {
		return "", fmt.Errorf("invalid %s record: %w", collection, err)
	}
	return StatusValid, nil
}

// ValidateKey holds a record's key against what its collection's schema asks
// for. Any key will do where there is no schema.
func ValidateKey(collection, rkey string) error {
	def, known := schemas().record(collection)
	if !known {
		return nil
	}
	var err error
	switch kind, literal, _ := strings.Cut(def.Key, ":"); kind {
	case "tid":
		if !isTID(rkey) {
			_, err = syntax.ParseTID(rkey)
		}
	case "nsid":
		err = CheckNSID(rkey)
	case "literal":
		if rkey != literal {
			err = fmt.Errorf("must be %q", literal)
		}
	}
	if err != nil {
		return fmt.Errorf("invalid record key for %s: %w (got %.80q)", collection, err, rkey)
	}
	return nil
}

func (c catalog) record(collection string) (lexicon.SchemaRecord, bool) {
	def, _, _ := c.resolve(collection, "")
	r, ok := def.(lexicon.SchemaRecord)
	return r, ok && !strings.Contains(collection, "#")
}

// Input reads the JSON body of a procedure and holds it against its schema.
// Objects in it are as Unmarshal gives them. ErrSyntax says it is no JSON.
func Input(nsid string, raw []byte) (map[string]any, error) {
	def, ok := schemas()[nsid+"#main"].(lexicon.SchemaProcedure)
	if !ok || def.Input == nil || def.Input.Schema == nil {
		return nil, fmt.Errorf("no schema for the input of %s", nsid)
	}
	object, err := parseObject(raw, inputDepth)
	if err != nil {
		return nil, err
	}
	if err := schemas().check(def.Input.Schema.Inner, nsid, object, "$"); err != nil {
		return nil, err
	}
	return object, nil
}

// ValidateInput says whether raw is a proper JSON body for a procedure.
func ValidateInput(nsid string, raw []byte) error {
	_, err := Input(nsid, raw)
	return err
}

// HasInput says whether a procedure takes a JSON body.
func HasInput(nsid string) bool {
	def, ok := schemas()[nsid+"#main"].(lexicon.SchemaProcedure)
	return ok && def.Input != nil && def.Input.Schema != nil
}
