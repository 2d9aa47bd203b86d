package lexicon

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
)

// Marshal returns the canonical DAG-CBOR of a record whose values are nil, bool,
// int64, string, atdata.CIDLink, atdata.Bytes, []any and map[string]any.
func Marshal(object map[string]any) ([]byte, error) {
	return appendCBOR(make([]byte, 0, 512), object, maxDepth)
}

func appendCBOR(out []byte, value any, depth int) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(out, simpleNull), nil
	case bool:
		if v {
			return append(out, simpleTrue), nil
		}
		return append(out, simpleFalse), nil
	case int64:
		return appendInteger(out, v)
	case string:
		if !utf8.ValidString(v) {
			return nil, errors.New("invalid UTF-8 in a string")
		}
		return append(AppendHead(out, majorText, uint64(len(v))), v...), nil
	case atdata.Bytes:
		return append(AppendHead(out, majorBytes, uint64(len(v))), v...), nil
	case atdata.CIDLink:
		if !v.IsDefined() {
			return nil, errors.New("link without a CID")
		}
		raw := v.CID().Bytes()
		out = AppendHead(out, majorTag, tagCID)
		out = AppendHead(out, majorBytes, uint64(len(raw)+1))
		return append(append(out, 0), raw...), nil
	case []any:
		return appendList(out, v, depth)
	case map[string]any:
		return appendMap(out, v, depth)
	default:
		return nil, fmt.Errorf("%T is not in the data model", value)
	}
}

func appendInteger(out []byte, n int64) ([]byte, error) {
	if n > maxInteger || n < -maxInteger {
		return nil, fmt.Errorf("integer %d is beyond 2^53-1", n)
	}
	if n < 0 {
		return AppendHead(out, majorNegative, uint64(-1-n)), nil
	}
	return AppendHead(out, majorUint, uint64(n)), nil
}

func appendList(out []byte, list []any, depth int) (_ []byte, err error) {
	if depth == 0 {
		return nil, errors.New("nested too deeply")
	}
	out = AppendHead(out, majorArray, uint64(len(list)))
	for _, value := range list {
		if out, err = appendCBOR(out, value, depth-1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func appendMap(out []byte, object map[string]any, depth int) (_ []byte, err error) {
	if depth == 0 {
		return nil, errors.New("nested too deeply")
	}
	if err := checkMap(object); err != nil {
		return nil, err
	}
	out = AppendHead(out, majorMap, uint64(len(object)))
	for key, value := range sorted(object) {
		if !utf8.ValidString(key) {
			return nil, errors.New("invalid UTF-8 in a key")
		}
		out = append(AppendHead(out, majorText, uint64(len(key))), key...)
		if out, err = appendCBOR(out, value, depth-1); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return out, nil
}

// checkMap returns an error for a map that has another meaning in JSON.
func checkMap(object map[string]any) error {
	for _, key := range []string{"$link", "$bytes"} {
		if _, ok := object[key]; ok {
			return fmt.Errorf("reserved key %s", key)
		}
	}
	return checkType(object, nil)
}

// sorted iterates over an object in the key order of DAG-CBOR: shorter keys first.
func sorted(object map[string]any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		var room [16]string
		keys := room[:0]
		for key := range object {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, compareKeys)
		for _, key := range keys {
			if !yield(key, object[key]) {
				return
			}
		}
	}
}

func compareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// AppendHead appends the head of a CBOR item (RFC 8949, section 3) in its shortest form:
// the major type, in the upper three bits, and the argument.
func AppendHead(out []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(out, major|27), n)
	}
}
