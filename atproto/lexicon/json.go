package lexicon

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// maxDepth limits the nesting of objects and arrays in a record.
	maxDepth = 32
	// inputDepth is the same limit for a request body, which contains records.
	inputDepth = maxDepth + 4
	// maxInteger is the largest integer that JavaScript does not round.
	maxInteger = 1<<53 - 1
)

// ErrSyntax means that a text is not JSON syntax.
var ErrSyntax = errors.New("invalid JSON")

// FromJSON converts a record's JSON to canonical DAG-CBOR. Values outside the data model
// are errors: fractions, integers beyond 2^53-1, duplicate keys, invalid UTF-8 or
// UTF-16, nesting over 32 levels, malformed $link, $bytes and blobs. Errors have the
// path of the value, such as "$.embed.images[0]".
func FromJSON(raw []byte) ([]byte, error) {
	object, err := parseObject(raw, maxDepth)
	if err != nil {
		return nil, err
	}
	return Marshal(object)
}

// Encode returns the canonical DAG-CBOR of a record: a struct of this package, or a map
// with a $type.
func Encode(record any) ([]byte, error) {
	raw, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	object, err := parseObject(raw, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if _, ok := object["$type"]; !ok {
		return nil, errors.New("encode record: no $type")
	}
	return Marshal(object)
}

// ToJSON converts a record's canonical DAG-CBOR to JSON with the same order of keys.
func ToJSON(cbor []byte) ([]byte, error) {
	object, err := Unmarshal(cbor)
	if err != nil {
		return nil, err
	}
	return appendJSON(make([]byte, 0, 2*len(cbor)), object)
}
