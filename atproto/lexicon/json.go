package lexicon

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// maxDepth is how deep a record's objects and arrays may nest.
	maxDepth = 32
	// inputDepth is the same for a request body, which wraps records.
	inputDepth = maxDepth + 4
	// maxInteger is the largest integer JavaScript readers do not round.
	maxInteger = 1<<53 - 1
)

// ErrSyntax is what text that is no JSON at all is refused with.
var ErrSyntax = errors.New("not valid JSON")

// FromJSON turns a record's JSON into canonical DAG-CBOR. It refuses what the
// data model has no room for: fractions, integers beyond 2^53-1,
// duplicate keys, invalid UTF-8 or UTF-16, nesting over 32 levels, malformed
// $link, $bytes and blobs. Errors name the place, like "$.embed.images[0]".
func FromJSON(raw []byte) ([]byte, error) {
	object, err := parseObject(raw, maxDepth)
	if err != nil {
		return nil, err
	}
	return Marshal(object)
}

// Encode gives the canonical DAG-CBOR of a record of ours: a struct of this
// package, or a map with a $type.
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
		return nil, errors.New("encode record: it has no $type")
	}
	return Marshal(object)
}

// ToJSON turns a record's canonical DAG-CBOR into JSON, with its keys in the
// same order.
func ToJSON(cbor []byte) ([]byte, error) {
	object, err := Unmarshal(cbor)
	if err != nil {
		return nil, err
	}
	return appendJSON(make([]byte, 0, 2*len(cbor)), object)
}
