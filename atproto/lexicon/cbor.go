package lexicon

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// The DAG-CBOR that the data model needs is small, and the decoders at hand
// accept unsorted keys, long integers and trailing bytes: a record that reads
// back with another CID. So encoder and decoder are here, and strict.

// Major types of CBOR, in the upper three bits of an item's first byte.
const (
	majorUint = iota << 5
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

const (
	simpleFalse = majorSimple | 20
	simpleTrue  = majorSimple | 21
	simpleNull  = majorSimple | 22
	tagCID      = 42
)

// Marshal gives the canonical DAG-CBOR of a record whose values are nil, bool,
// int64, string, atdata.CIDLink, atdata.Bytes, []any and map[string]any.
func Marshal(object map[string]any) ([]byte, error) {
	return appendCBOR(nil, object, maxDepth)
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
			return nil, errors.New("text is not UTF-8")
		}
		return append(appendHead(out, majorText, uint64(len(v))), v...), nil
	case atdata.Bytes:
		return append(appendHead(out, majorBytes, uint64(len(v))), v...), nil
	case atdata.CIDLink:
		if !v.IsDefined() {
			return nil, errors.New("link without a CID")
		}
		raw := v.CID().Bytes()
		out = appendHead(out, majorTag, tagCID)
		out = appendHead(out, majorBytes, uint64(len(raw)+1))
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
		return appendHead(out, majorNegative, uint64(-1-n)), nil
	}
	return appendHead(out, majorUint, uint64(n)), nil
}

func appendList(out []byte, list []any, depth int) (_ []byte, err error) {
	if depth == 0 {
		return nil, errors.New("nested too deeply")
	}
	out = appendHead(out, majorArray, uint64(len(list)))
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
	out = appendHead(out, majorMap, uint64(len(object)))
	for _, key := range sortedKeys(object) {
		if !utf8.ValidString(key) {
			return nil, errors.New("key is not UTF-8")
		}
		out = append(appendHead(out, majorText, uint64(len(key))), key...)
		if out, err = appendCBOR(out, object[key], depth-1); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return out, nil
}

// checkMap refuses maps that JSON would read as something else.
func checkMap(object map[string]any) error {
	for _, key := range []string{"$link", "$bytes"} {
		if _, ok := object[key]; ok {
			return fmt.Errorf("%s stands for a value and cannot be a key", key)
		}
	}
	return checkType(object, "$")
}

// sortedKeys puts shorter keys first, as DAG-CBOR does.
func sortedKeys(object map[string]any) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func appendHead(out []byte, major byte, n uint64) []byte {
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

// Unmarshal reads a record's DAG-CBOR into the values that Marshal takes. Any
// bytes that Marshal would not have made are an error.
func Unmarshal(cbor []byte) (map[string]any, error) {
	d := decoder{rest: cbor}
	value, err := d.value(maxDepth)
	if err != nil {
		return nil, fmt.Errorf("decode record at byte %d: %w", len(cbor)-len(d.rest), err)
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("decode record: %d bytes follow its end", len(d.rest))
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("decode record: it is not an object")
	}
	return object, nil
}

var (
	errShort   = errors.New("it ends too early")
	errNotDAG  = errors.New("not canonical DAG-CBOR")
	errNotData = errors.New("not in the data model")
)

type decoder struct{ rest []byte }

// head reads an item's major type and number, which must be the shortest form.
func (d *decoder) head() (major byte, n uint64, err error) {
	if len(d.rest) == 0 {
		return 0, 0, errShort
	}
	first := d.rest[0]
	major, info := first&0xe0, first&0x1f
	if info < 24 {
		d.rest = d.rest[1:]
		return major, uint64(info), nil
	}
	if info > 27 || major == majorSimple {
		return 0, 0, errNotDAG
	}
	width := 1 << (info - 24)
	if len(d.rest) < 1+width {
		return 0, 0, errShort
	}
	for _, b := range d.rest[1 : 1+width] {
		n = n<<8 | uint64(b)
	}
	if len(appendHead(nil, major, n)) != 1+width {
		return 0, 0, errNotDAG
	}
	d.rest = d.rest[1+width:]
	return major, n, nil
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.rest)) {
		return nil, errShort
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b, nil
}

func (d *decoder) value(depth int) (any, error) {
	major, n, err := d.head()
	if err != nil {
		return nil, err
	}
	switch major {
	case majorUint, majorNegative:
		return decodeInteger(major, n)
	case majorBytes:
		b, err := d.take(n)
		return atdata.Bytes(slices.Clone(b)), err
	case majorText:
		return d.text(n)
	case majorArray:
		return d.list(n, depth)
	case majorMap:
		return d.object(n, depth)
	case majorTag:
		return d.link(n)
	}
	switch majorSimple | byte(n) {
	case simpleFalse:
		return false, nil
	case simpleTrue:
		return true, nil
	case simpleNull:
		return nil, nil
	}
	return nil, errNotData
}

func decodeInteger(major byte, n uint64) (any, error) {
	if major == majorNegative {
		n++
	}
	if n > maxInteger || n == 0 && major == majorNegative {
		return nil, errNotData
	}
	if major == majorNegative {
		return -int64(n), nil
	}
	return int64(n), nil
}

func (d *decoder) text(n uint64) (string, error) {
	b, err := d.take(n)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", errNotData
	}
	return string(b), nil
}

func (d *decoder) list(n uint64, depth int) (any, error) {
	if depth == 0 || n > uint64(len(d.rest)) { // an item has at least a byte
		return nil, errNotData
	}
	list := make([]any, 0, min(n, 64)) // n is a claim; memory follows what is there
	for range n {
		value, err := d.value(depth - 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

func (d *decoder) object(n uint64, depth int) (any, error) {
	if depth == 0 || n > uint64(len(d.rest))/2 {
		return nil, errNotData
	}
	object := make(map[string]any, min(n, 64))
	last := ""
	for i := range n {
		major, length, err := d.head()
		if err != nil {
			return nil, err
		}
		if major != majorText {
			return nil, errNotData
		}
		key, err := d.text(length)
		if err != nil {
			return nil, err
		}
		if i > 0 && compareKeys(last, key) >= 0 {
			return nil, errNotDAG
		}
		last = key
		if object[key], err = d.value(depth - 1); err != nil {
			return nil, err
		}
	}
	return object, checkMap(object)
}

func (d *decoder) link(tag uint64) (any, error) {
	if tag != tagCID {
		return nil, errNotData
	}
	major, n, err := d.head()
	if err != nil {
		return nil, err
	}
	b, err := d.take(n)
	if err != nil {
		return nil, err
	}
	if major != majorBytes || len(b) < 2 || b[0] != 0 {
		return nil, errNotDAG
	}
	c, err := cid.Cast(b[1:])
	if err != nil || c.Version() != 1 {
		return nil, errNotData
	}
	return atdata.CIDLink(c), nil
}
