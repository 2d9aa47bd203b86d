package compare

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// summary says what is compared of a CAR file (https://ipld.io/specs/transport/car/carv1/):
// how many roots it has, whether the first is the repository's head, and
// whether it has blocks, the head's among them. Every block is held against
// its hash.
func summary(car []byte, head string) (string, error) {
	header, rest, err := section(car)
	if err != nil {
		return "", err
	}
	raw, err := lexicon.ToJSON(header)
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	roots, isHead := bytes.Count(raw, []byte("$link")), bytes.Contains(raw, []byte(`"`+head+`"`))
	blocks, hasHead := 0, false
	for ; len(rest) > 0; blocks++ {
		var block []byte
		if block, rest, err = section(rest); err != nil {
			return "", err
		}
		n, id, err := cid.CidFromBytes(block)
		if err != nil {
			return "", fmt.Errorf("block %d: %w", blocks, err)
		}
		if got, err := id.Prefix().Sum(block[n:]); err != nil || !got.Equals(id) {
			return "", fmt.Errorf("block %d is %v, but its bytes are not", blocks, id)
		}
		hasHead = hasHead || id.String() == head
	}
	return fmt.Sprintf("roots %d head %v, blocks %v head %v", roots, isHead, blocks > 0, hasHead), nil
}

// section cuts off a piece that is led by its length.
func section(b []byte) (piece, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || uint64(len(b)-n) < size {
		return nil, nil, errors.New("the archive is cut off")
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}
