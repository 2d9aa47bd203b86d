package lexicon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

func parseObject(raw []byte, depth int) (map[string]any, error) {
	if err := checkText(raw); err != nil {
		return nil, err
	}
	p := parser{json.NewDecoder(bytes.NewReader(raw))}
	p.UseNumber()
	value, err := p.value("$", depth)
	if err != nil {
		return nil, err
	}
	if _, err := p.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows its end", ErrSyntax)
	}
	switch value := value.(type) {
	case map[string]any:
		return value, nil
	case []any:
		return nil, errors.New("expected an object at $")
	}
	return nil, fmt.Errorf("%w: expected an object", ErrSyntax) // as strict readers of request bodies say it
}

// checkText refuses what encoding/json would silently replace by U+FFFD.
func checkText(raw []byte) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: it is not UTF-8", ErrSyntax)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // the escaped character
		unit, ok := escapedUnit(raw, i)
		if !ok {
			continue
		}
		i += 4
		if unit < 0xd800 || unit > 0xdfff {
			continue
		}
		low, ok := uint64(0), false
		if i+2 < len(raw) && raw[i+1] == '\\' {
			low, ok = escapedUnit(raw, i+2)
		}
		if unit >= 0xdc00 || !ok || low < 0xdc00 || low > 0xdfff {
			return fmt.Errorf("%w: it has half of a surrogate pair", ErrSyntax)
		}
		i += 6
	}
	return nil
}

// escapedUnit reads "uXXXX" at i.
func escapedUnit(raw []byte, i int) (uint64, bool) {
	if i+5 > len(raw) || raw[i] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(raw[i+1:i+5]), 16, 32)
	return unit, err == nil
}

type parser struct{ *json.Decoder }

func (p parser) token() (json.Token, error) {
	t, err := p.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return t, nil
}

func (p parser) value(path string, depth int) (any, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return integer(string(t), path)
	case json.Delim:
		if depth == 0 {
			return nil, fmt.Errorf("nested too deeply at %s", path)
		}
		if t == '[' {
			return p.array(path, depth-1)
		}
		return p.object(path, depth-1)
	default: // nil, bool, string
		return t, nil
	}
}

// integer takes "12" and, as other implementations do, "12.0" and "1.2e1".
func integer(text, path string) (int64, error) {
	if strings.ContainsAny(text, "eE") {
		if f, err := strconv.ParseFloat(text, 64); err == nil && f == math.Trunc(f) {
			text = strconv.FormatFloat(f, 'f', 0, 64)
		}
	}
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n > maxInteger || n < -maxInteger {
		return 0, fmt.Errorf("integer beyond 2^53-1 (got %.40s) at %s", text, path)
	}
	if err != nil || strings.Trim(fraction, "0") != "" {
		return 0, fmt.Errorf("expected an integer (got %.40s) at %s", text, path)
	}
	return n, nil
}

func (p parser) array(path string, depth int) (any, error) {
	list := []any{}
	for p.More() {
		value, err := p.value(path+"["+strconv.Itoa(len(list))+"]", depth)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := p.token()
	return list, err
}

func (p parser) object(path string, depth int) (any, error) {
	object := map[string]any{}
	for p.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("%w: expected a key at %s", ErrSyntax, path)
		}
		if key == "__proto__" {
			return nil, fmt.Errorf("invalid key __proto__ at %s", path) // it would not survive JavaScript readers
		}
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("duplicate key %.80q at %s", key, path)
		}
		if object[key], err = p.value(path+"."+key, depth); err != nil {
			return nil, err
		}
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	return special(object, path)
}

// special turns {"$link"} and {"$bytes"} into what they stand for, and checks
// the form of a $type and of a blob.
func special(object map[string]any, path string) (any, error) {
	if link, ok := object["$link"]; ok {
		text, ok := link.(string)
		if !ok || len(object) != 1 {
			return nil, fmt.Errorf("malformed $link at %s", path)
		}
		c, err := cid.Decode(text)
		if err != nil || c.Version() != 1 {
			return nil, fmt.Errorf("invalid CID (got %.80q) at %s", text, path)
		}
		return atdata.CIDLink(c), nil
	}
	if encoded, ok := object["$bytes"]; ok {
		text, ok := encoded.(string)
		if !ok || len(object) != 1 {
			return nil, fmt.Errorf("malformed $bytes at %s", path)
		}
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		if err != nil {
			return nil, fmt.Errorf("invalid base64 at %s", path)
		}
		return atdata.Bytes(b), nil
	}
	if err := checkType(object, path); err != nil {
		return nil, err
	}
	return object, nil
}

func checkType(object map[string]any, path string) error {
	value, ok := object["$type"]
	if !ok {
		return nil
	}
	name, _ := value.(string)
	if name == "" {
		return fmt.Errorf("$type must be a string that is not empty at %s", path)
	}
	if name == "blob" {
		if _, ok := asBlob(object); !ok {
			return fmt.Errorf("malformed blob at %s", path)
		}
	}
	return nil
}

// asBlob reads {"$type":"blob","ref","mimeType","size"}.
func asBlob(object map[string]any) (atdata.Blob, bool) {
	ref, ok1 := object["ref"].(atdata.CIDLink)
	mime, ok2 := object["mimeType"].(string)
	size, ok3 := object["size"].(int64)
	ok := ok1 && ok2 && ok3 && size >= 0 && len(object) == 4 && object["$type"] == "blob"
	return atdata.Blob{Ref: ref, MimeType: mime, Size: size}, ok
}
