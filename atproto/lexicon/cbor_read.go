package lexicon

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// Unmarshal decodes a record's canonical DAG-CBOR into values that Marshal accepts. Any
// other encoding is an error.
func Unmarshal(cbor []byte) (map[string]any, error) {
	d := decoder{rest: cbor}
	value, err := d.value(maxDepth)
	if err != nil {
		return nil, fmt.Errorf("decode record at byte %d: %w", len(cbor)-len(d.rest), err)
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("decode record: %d trailing bytes", len(d.rest))
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("decode record: not an object")
	}
	return object, nil
}

var (
	errTruncated    = errors.New("unexpected end")
	errNotCanonical = errors.New("not canonical DAG-CBOR")
	errNotInModel   = errors.New("not in the data model")
)

type decoder struct{ rest []byte }

// head reads the head of an item: its major type and its argument, which must have the
// shortest form.
func (d *decoder) head() (major byte, n uint64, err error) {
	if len(d.rest) == 0 {
		return 0, 0, errTruncated
	}
	first := d.rest[0]
	major, info := first&0xe0, first&0x1f
	if info < 24 {
		d.rest = d.rest[1:]
		return major, uint64(info), nil
	}
	if info > 27 || major == majorSimple {
		return 0, 0, errNotCanonical
	}
	width := 1 << (info - 24)
	if len(d.rest) < 1+width {
		return 0, 0, errTruncated
	}
	for _, b := range d.rest[1 : 1+width] {
		n = n<<8 | uint64(b)
	}
	if len(AppendHead(nil, major, n)) != 1+width {
		return 0, 0, errNotCanonical
	}
	d.rest = d.rest[1+width:]
	return major, n, nil
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.rest)) {
		return nil, errTruncated
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
	return nil, errNotInModel
}

func decodeInteger(major byte, n uint64) (any, error) {
	if major == majorNegative {
		n++
	}
	if n > maxInteger || n == 0 && major == majorNegative {
		return nil, errNotInModel
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
		return "", errNotInModel
	}
	return string(b), nil
}

func (d *decoder) list(n uint64, depth int) (any, error) {
	if depth == 0 || n > uint64(len(d.rest)) { // an item has at least a byte
		return nil, errNotInModel
	}
	list := make([]any, 0, min(n, 64)) // n is untrusted
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
		return nil, errNotInModel
	}
	object := make(map[string]any, min(n, 64))
	last := ""
	for i := range n {
		major, length, err := d.head()
		if err != nil {
			return nil, err
		}
		if major != majorText {
			return nil, errNotInModel
		}
		key, err := d.text(length)
		if err != nil {
			return nil, err
		}
		if i > 0 && compareKeys(last, key) >= 0 {
			return nil, errNotCanonical
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
		return nil, errNotInModel
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
		return nil, errNotCanonical
	}
	c, err := cid.Cast(b[1:])
	if err != nil || c.Version() != 1 {
		return nil, errNotInModel
	}
	return atdata.CIDLink(c), nil
}
