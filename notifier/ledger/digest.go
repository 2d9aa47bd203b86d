package ledger

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
)

// A digest in a key is binary, after its length in bytes as one byte; 0 means that it is
// not hexadecimal: it follows as text and a zero byte.

// algorithms by length of their digests in bytes
var algorithms = map[int]string{32: "sha256", 48: "sha384", 64: "sha512"}

// AppendDigest appends a digest to a key.
func AppendDigest(k []byte, digest string) []byte {
	algorithm, text, _ := strings.Cut(digest, ":")
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw) > 0 && algorithms[len(raw)] == algorithm && hex.EncodeToString(raw) == text {
		return append(append(k, byte(len(raw))), raw...)
	}
	return append(append(append(k, 0), digest...), 0)
}

var errKey = errors.New("damaged key")

// CutDigest returns the digest that a part of a key begins with, and the rest.
func CutDigest(k []byte) (digest string, rest []byte, err error) {
	if len(k) == 0 {
		return "", nil, errKey
	}
	n, k := int(k[0]), k[1:]
	if n == 0 {
		text, rest, ok := bytes.Cut(k, []byte{0})
		if !ok {
			return "", nil, errKey
		}
		return string(text), rest, nil
	}
	algorithm := algorithms[n]
	if algorithm == "" || len(k) < n {
		return "", nil, errKey
	}
	return algorithm + ":" + hex.EncodeToString(k[:n]), k[n:], nil
}
