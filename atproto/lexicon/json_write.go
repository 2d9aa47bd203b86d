package lexicon

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/go-json-experiment/json/jsontext"
)

func appendJSON(out []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return strconv.AppendBool(out, v), nil
	case int64:
		return strconv.AppendInt(out, v, 10), nil
	case string:
		return appendString(out, v), nil
	case atdata.CIDLink:
		return append(append(append(out, `{"$link":"`...), v.String()...), `"}`...), nil
	case atdata.Bytes:
		out = append(out, `{"$bytes":"`...)
		return append(base64.RawStdEncoding.AppendEncode(out, v), `"}`...), nil
	case []any:
		return appendArray(out, v)
	case map[string]any:
		return appendObject(out, v)
	default:
		return nil, fmt.Errorf("%T is not in the data model", value)
	}
}

func appendArray(out []byte, list []any) (_ []byte, err error) {
	out = append(out, '[')
	for i, value := range list {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = appendJSON(out, value); err != nil {
			return nil, err
		}
	}
	return append(out, ']'), nil
}

func appendObject(out []byte, object map[string]any) (_ []byte, err error) {
	out = append(out, '{')
	first := len(out)
	for key, value := range sorted(object) {
		if len(out) > first {
			out = append(out, ',')
		}
		out = append(appendString(out, key), ':')
		if out, err = appendJSON(out, value); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

func appendString(out []byte, text string) []byte {
	out, _ = jsontext.AppendQuote(out, text) // an error means that invalid UTF-8 was replaced by U+FFFD
	return out
}
