package usage

import (
	"encoding/binary"
	"errors"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Parts of the keys after the prefix of the table. No DID has a zero byte.
const (
	manifests = "m/"
	layers    = "l/"
	totals    = "o/"
)

func (t *Table) ownerPrefix(part, owner string) []byte {
	return append([]byte(t.prefix+part+owner), 0)
}

func (t *Table) manifestKey(owner, digest string) []byte {
	return ledger.AppendDigest(t.ownerPrefix(manifests, owner), digest)
}

func (t *Table) layerKey(owner string, l Layer) []byte {
	return appendLayer(t.ownerPrefix(layers, owner), l)
}

func (t *Table) totalKey(owner string) []byte { return []byte(t.prefix + totals + owner) }

var errDamaged = errors.New("damaged row")

func appendLayer(b []byte, l Layer) []byte {
	return binary.AppendUvarint(ledger.AppendDigest(b, l.Digest), uint64(l.Size))
}

// cutLayer is the inverse of appendLayer. rest is what follows.
func cutLayer(b []byte) (l Layer, rest []byte, err error) {
	digest, rest, err := ledger.CutDigest(b)
	if err != nil {
		return l, nil, err
	}
	size, n := binary.Uvarint(rest)
	if n <= 0 {
		return l, nil, errDamaged
	}
	return Layer{digest, int64(size)}, rest[n:], nil
}

func encodeLayers(list []Layer) []byte {
	b := make([]byte, 0, 40*len(list))
	for _, l := range list {
		b = appendLayer(b, l)
	}
	return b
}

// decodeLayers decodes the result of a Get: nil if there is no row.
func decodeLayers(val []byte, err error) ([]Layer, error) {
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	list := []Layer{}
	for len(val) > 0 && err == nil {
		var l Layer
		if l, val, err = cutLayer(val); err == nil {
			list = append(list, l)
		}
	}
	return list, err
}

// decodeCount decodes the result of a Get: 0 if there is no row.
func decodeCount(val []byte, err error) (int64, error) {
	if errors.Is(err, state.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	count, n := binary.Uvarint(val)
	if n != len(val) || n <= 0 {
		return 0, errDamaged
	}
	return int64(count), nil
}

func setCount(b *state.Batch, key []byte, count int64) {
	if count == 0 {
		b.Delete(key)
		return
	}
	b.Set(key, binary.AppendUvarint(nil, uint64(count)))
}

// decodeTotal decodes the result of a Get: zero if there is no row.
func decodeTotal(val []byte, err error) (t Total, _ error) {
	if errors.Is(err, state.ErrNotFound) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	blobs, n := binary.Varint(val)
	if n <= 0 {
		return t, errDamaged
	}
	bytes, m := binary.Varint(val[n:])
	if m <= 0 || n+m != len(val) {
		return t, errDamaged
	}
	return Total{blobs, bytes}, nil
}
