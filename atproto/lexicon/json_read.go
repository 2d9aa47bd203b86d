package lexicon

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/ipfs/go-cid"
)

func parseObject(raw []byte, depth int) (map[string]any, error) {
	// Duplicate keys are detected here, where their path is known.
	p := parser{jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true))}
	value, err := p.value(nil, depth)
	if err != nil {
		return nil, err
	}
	if _, err := p.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("%w: trailing data", ErrSyntax)
	}
	switch value := value.(type) {
	case map[string]any:
		return value, nil
	case []any:
		return nil, errors.New("expected an object at $")
	}
	return nil, fmt.Errorf("%w: expected an object", ErrSyntax) // like other invalid request bodies
}

// location is the path of a value, for errors; nil is the root.
type location struct {
	parent *location
	key    string
	index  int // of an array's element, if key is empty
}

func (p *location) String() string {
	switch {
	case p == nil:
		return "$"
	case p.key == "":
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	}
	return p.parent.String() + "." + p.key
}

type parser struct{ *jsontext.Decoder }

func (p parser) token() (jsontext.Token, error) {
	t, err := p.ReadToken()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		err = fmt.Errorf("%w after byte %d", syntax.Err, syntax.ByteOffset)
	}
	if err != nil {
		return t, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return t, nil
}

func (p parser) value(at *location, depth int) (any, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return t.Bool(), nil
	case '"':
		return t.String(), nil
	case '0':
		return integer(t.String(), at)
	}
	if depth == 0 {
		return nil, fmt.Errorf("nested too deeply at %s", at)
	}
	if t.Kind() == '[' {
		return p.array(at, depth-1)
	}
	return p.object(at, depth-1)
}

// integer parses "12" and, like other implementations, "12.0" and "1.2e1".
func integer(text string, at *location) (int64, error) {
	if strings.ContainsAny(text, "eE") {
		if f, err := strconv.ParseFloat(text, 64); err == nil && f == math.Trunc(f) {
			text = strconv.FormatFloat(f, 'f', 0, 64)
		}
	}
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n > maxInteger || n < -maxInteger {
		return 0, fmt.Errorf("integer beyond 2^53-1 (got %.40s) at %s", text, at)
	}
	if err != nil || strings.Trim(fraction, "0") != "" {
		return 0, fmt.Errorf("expected an integer (got %.40s) at %s", text, at)
	}
	return n, nil
}

func (p parser) array(at *location, depth int) (any, error) {
	list := []any{}
	for p.PeekKind() != ']' {
		value, err := p.value(&location{parent: at, index: len(list)}, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := p.token()
	return list, err
}

func (p parser) object(at *location, depth int) (any, error) {
	object := map[string]any{}
	for p.PeekKind() != '}' {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		key := t.String()
		if key == "__proto__" {
			return nil, fmt.Errorf("invalid key __proto__ at %s", at) // JavaScript programs would lose it
		}
		if _, duplicate := object[key]; duplicate {
			return nil, fmt.Errorf("duplicate key %.80q at %s", key, at)
		}
		if object[key], err = p.value(&location{parent: at, key: key}, depth); err != nil {
			return nil, err
		}
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	return special(object, at)
}

// special converts {"$link"} and {"$bytes"} to their values, and checks the form of a
// $type and of a blob.
func special(object map[string]any, at *location) (any, error) {
	if link, ok := object["$link"]; ok {
		text, ok := link.(string)
		if !ok || len(object) != 1 {
			return nil, fmt.Errorf("malformed $link at %s", at)
		}
		c, err := cid.Decode(text)
		if err != nil || c.Version() != 1 {
			return nil, fmt.Errorf("invalid CID (got %.80q) at %s", text, at)
		}
		return atdata.CIDLink(c), nil
	}
	if encoded, ok := object["$bytes"]; ok {
		text, ok := encoded.(string)
		if !ok || len(object) != 1 {
			return nil, fmt.Errorf("malformed $bytes at %s", at)
		}
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		if err != nil {
			return nil, fmt.Errorf("invalid base64 at %s", at)
		}
		return atdata.Bytes(b), nil
	}
	if err := checkType(object, at); err != nil {
		return nil, err
	}
	return object, nil
}

func checkType(object map[string]any, at *location) error {
	value, ok := object["$type"]
	if !ok {
		return nil
	}
	name, _ := value.(string)
	if name == "" {
		return fmt.Errorf("$type must be a non-empty string at %s", at)
	}
	if name == "blob" {
		if _, ok := asBlob(object); !ok {
			return fmt.Errorf("malformed blob at %s", at)
		}
	}
	return nil
}

// asBlob converts {"$type":"blob","ref","mimeType","size"}.
func asBlob(object map[string]any) (atdata.Blob, bool) {
	ref, ok1 := object["ref"].(atdata.CIDLink)
	mime, ok2 := object["mimeType"].(string)
	size, ok3 := object["size"].(int64)
	ok := ok1 && ok2 && ok3 && size >= 0 && len(object) == 4 && object["$type"] == "blob"
	return atdata.Blob{Ref: ref, MimeType: mime, Size: size}, ok
}
