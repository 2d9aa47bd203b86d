package hold

import (
	"encoding/binary"
	"io"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// block is one entry of a CAR.
type block struct {
	cid  cid.Cid
	data []byte
}

func carOf(write func(io.Writer) error) stream {
	return stream{"application/vnd.ipld.car", write}
}

// writeCAR writes a CAR v1 (https://ipld.io/specs/transport/car/carv1/) of a
// few blocks.
func writeCAR(out io.Writer, root cid.Cid, blocks ...block) error {
	header, err := lexicon.Marshal(map[string]any{
		"version": int64(1),
		"roots":   []any{atdata.CIDLink(root)},
	})
	if err != nil {
		return err
	}
	car := append(binary.AppendUvarint(nil, uint64(len(header))), header...)
	for _, b := range blocks {
		id := b.cid.Bytes()
		car = binary.AppendUvarint(car, uint64(len(id)+len(b.data)))
		car = append(append(car, id...), b.data...)
	}
	_, err = out.Write(car)
	return err
}
