package compare

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// summary describes the compared properties of a CAR file
// (https://ipld.io/specs/transport/car/carv1/): the number of roots, whether the first
// is the repo's head, and whether it has blocks and the head among them. It
// checks the hash of every block.
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
			return "", fmt.Errorf("block %d does not match its CID %v", blocks, id)
		}
		hasHead = hasHead || id.String() == head
	}
	return fmt.Sprintf("roots %d head %v, blocks %v head %v", roots, isHead, blocks > 0, hasHead), nil
}

// section splits off a section with a length prefix.
func section(b []byte) (piece, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || uint64(len(b)-n) < size {
		return nil, nil, errors.New("CAR file is truncated")
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}
