package notifier

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
)

// recordWrites returns the creates of a manifest's layer records, with the keys of its
// ledger entry. The same entry and layers result in the same bytes.
func recordWrites(owner, digest string, layers []event.Layer, e ledger.Entry) ([]repo.Write, error) {
	writes := make([]repo.Write, 0, len(layers))
	for i, l := range layers {
		record, err := lexicon.Encode(lexicon.Layer{
			Digest:    l.Digest,
			Size:      l.Size,
			MediaType: l.MediaType,
			Manifest:  lexicon.ManifestURI(owner, digest),
			UserDID:   owner,
			CreatedAt: timestamp(e.First),
		})
		if err == nil {
			_, err = lexicon.Validate(lexicon.NSIDLayer, record)
		}
		if err != nil {
			return nil, fmt.Errorf("record of layer %s: %w", l.Digest, err)
		}
		writes = append(writes, repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: recordKey(e, i), Record: record})
	}
	return writes, nil
}

// recordDeletes returns the deletes of what recordWrites creates.
func recordDeletes(e ledger.Entry) []repo.Write {
	writes := make([]repo.Write, 0, e.Records)
	for i := range e.Records {
		writes = append(writes, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: recordKey(e, i)})
	}
	return writes
}

// recordKey is the key of a manifest's i-th record. The first TID of the push is the key of
// its post.
func recordKey(e ledger.Entry, i int) string { return event.TID(e.First+1+int64(i), e.ClockID) }

// timestamp formats a time in unix microseconds for AT Protocol records.
func timestamp(micros int64) string {
	return lexicon.Datetime(time.UnixMicro(micros))
}
