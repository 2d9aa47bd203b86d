package lexicon

import (
	"bytes"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// Blobs returns the blobs that a record refers to, in no particular order. A blob that
// occurs several times is returned several times.
func Blobs(record map[string]any) []atdata.Blob { return appendBlobs(nil, record) }

// blobType is the member "$type": "blob" in DAG-CBOR.
var blobType = []byte("\x65$type\x64blob")

// BlobsIn is Blobs for a record's canonical DAG-CBOR. A record without blobs
// is not decoded.
func BlobsIn(cbor []byte) ([]atdata.Blob, error) {
	if !bytes.Contains(cbor, blobType) {
		return nil, nil
	}
	record, err := Unmarshal(cbor)
	if err != nil {
		return nil, err
	}
	return Blobs(record), nil
}

func appendBlobs(blobs []atdata.Blob, value any) []atdata.Blob {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			blobs = appendBlobs(blobs, item)
		}
	case map[string]any:
		if blob, ok := asBlob(value); ok { // decoding has refused malformed blobs
			return append(blobs, blob)
		}
		for _, member := range value {
			blobs = appendBlobs(blobs, member)
		}
	}
	return blobs
}

// LegacyBlob finds a blob in the old form {"cid", "mimeType"}, which is allowed in
// existing records but not in new ones, and returns its cid.
func LegacyBlob(value any) (id string, found bool) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			if id, found = LegacyBlob(item); found {
				return id, true
			}
		}
	case map[string]any:
		id, ok1 := value["cid"].(string)
		mime, ok2 := value["mimeType"].(string)
		if _, err := cid.Decode(id); ok1 && ok2 && len(value) == 2 && mime != "" && err == nil {
			return id, true
		}
		for _, member := range sorted(value) {
			if id, found = LegacyBlob(member); found {
				return id, true
			}
		}
	}
	return "", false
}
