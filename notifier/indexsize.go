package notifier

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// learn remembers how large each image is, for the post of an index that lists
// it: an index says only how large its manifests are.
func (s *announceSink) learn(events []sequenced) error {
	batch := s.n.State.NewBatch()
	for _, e := range events {
		var err error
		switch {
		case e.Operation == opPush && e.Kind == KindImage && !e.Foreign && s.n.Public(e.Repository):
			size := binary.BigEndian.AppendUint64(nil, uint64(sizeOf(&e.Manifest)))
			err = batch.Set(sizeKey(e.Event), size, nil)
		case e.Operation == opDelete:
			err = batch.Delete(sizeKey(e.Event), nil)
		}
		if err != nil {
			return err
		}
	}
	return s.n.State.Commit(batch, pebble.NoSync)
}

// sizeOfIndex is how much the images of an index hold together, 0 if the size
// of one is not known.
func (s *announceSink) sizeOfIndex(e *Event) int64 {
	var sum int64
	for _, m := range e.Manifest.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue
		}
		size, err := s.sizeOfImage(e.Repository, m.Digest)
		if err != nil {
			return 0
		}
		sum += size
	}
	return sum
}

var errUnknownSize = errors.New("size is not known")

func (s *announceSink) sizeOfImage(repository, digest string) (int64, error) {
	val, closer, err := s.n.State.Get([]byte("a/m/" + repository + "\x00" + digest))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnknownSize, err)
	}
	defer closer.Close()
	if len(val) != 8 {
		return 0, errUnknownSize
	}
	return int64(binary.BigEndian.Uint64(val)), nil
}

func sizeKey(e *Event) []byte {
	return []byte("a/m/" + e.Repository + "\x00" + e.ManifestDigest)
}
