package lexicon

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Results of Validate, as in the validationStatus of com.atproto.repo.
const (
	StatusValid   = "valid"
	StatusUnknown = "unknown" // there is no schema for the collection
)

// Validate validates a record's DAG-CBOR against the schema of its collection. An error
// means that the record is invalid.
func Validate(collection string, cbor []byte) (status string, err error) {
	object, err := Unmarshal(cbor)
	if err != nil {
		return "", err
	}
	return ValidateRecord(collection, object)
}

// ValidateRecord is Validate for a decoded record.
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

// ValidateKey validates a record key against the schema of its collection. Without a
// schema any key is valid.
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
			err = fmt.Errorf("expected %q", literal)
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

// Input parses the JSON body of a procedure and validates it against the schema. Objects
// are as from Unmarshal. ErrSyntax means that the body is not JSON.
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

// HasInput reports whether a procedure has a JSON body.
func HasInput(nsid string) bool {
	def, ok := schemas()[nsid+"#main"].(lexicon.SchemaProcedure)
	return ok && def.Input != nil && def.Input.Schema != nil
}

// Output validates the JSON output of a method.
func Output(nsid string, raw []byte) error {
	var out *lexicon.SchemaBody
	switch def := schemas()[nsid+"#main"].(type) {
	case lexicon.SchemaQuery:
		out = def.Output
	case lexicon.SchemaProcedure:
		out = def.Output
	}
	if out == nil || out.Schema == nil {
		return fmt.Errorf("no schema for the output of %s", nsid)
	}
	object, err := parseObject(raw, inputDepth)
	if err != nil {
		return err
	}
	return schemas().check(out.Schema.Inner, nsid, object, "$")
}
