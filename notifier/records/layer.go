package records

import (
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// Creates returns the creates of a manifest's layer records, with the keys of its
// ledger entry. The same entry and layers result in the same bytes.
func Creates(owner, digest string, layers []event.Layer, e ledger.Entry) ([]repo.Write, error) {
	writes := make([]repo.Write, 0, len(layers))
	for i, l := range layers {
		record, err := lexicon.Encode(lexicon.Layer{
			Digest:    l.Digest,
			Size:      l.Size,
			MediaType: l.MediaType,
			Manifest:  lexicon.ManifestURI(owner, digest),
			UserDID:   owner,
			CreatedAt: lexicon.Datetime(time.UnixMicro(e.First)),
		})
		if err == nil {
			_, err = lexicon.Validate(lexicon.NSIDLayer, record)
		}
		if err != nil {
			return nil, fmt.Errorf("record of layer %s: %w", l.Digest, err)
		}
		writes = append(writes, repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: Key(e, i), Record: record})
	}
	return writes, nil
}

// Deletes returns the deletes of what Creates creates.
func Deletes(e ledger.Entry) []repo.Write {
	writes := make([]repo.Write, 0, e.Records)
	for i := range e.Records {
		writes = append(writes, repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: Key(e, i)})
	}
	return writes
}

// Key is the key of a manifest's i-th record. The first TID of the push is the key of
// its post.
func Key(e ledger.Entry, i int) string { return event.TID(e.First+1+int64(i), e.ClockID) }

// A Layer is what a layer record says, and the parts of its key.
type Layer struct {
	RKey     string
	Owner    string
	Manifest string      // digest
	Micros   int64       // time of the key, in unix microseconds
	ClockID  uint        // of the key
	Layer    usage.Layer // a size that is missing or negative is 0
}

// In reports whether a ledger entry has the record.
func (l *Layer) In(e ledger.Entry) bool { return l.ClockID == e.ClockID && l.Within(e) }

// Within is In for a record with any clock id.
func (l *Layer) Within(e ledger.Entry) bool {
	return l.Micros > e.First && l.Micros <= e.First+int64(e.Records)
}

// ReadLayer decodes a layer record; false if it is not one that the records sink
// writes.
func ReadLayer(r repo.Record) (Layer, bool) {
	fields, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		return Layer{}, false
	}
	uri, _ := fields["manifest"].(string)
	owner, digest, ok := lexicon.ParseManifestURI(uri)
	key, err := syntax.ParseTID(r.RKey)
	if !ok || err != nil {
		return Layer{}, false
	}
	layer, _ := fields["digest"].(string)
	size, _ := fields["size"].(int64)
	return Layer{r.RKey, owner, digest, key.Time().UnixMicro(), key.ClockID(), usage.Layer{Digest: layer, Size: max(0, size)}}, true
}
