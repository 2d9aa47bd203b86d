package lexicon

import (
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// Blobs lists the blobs that a record refers to, in no particular order.
func Blobs(record map[string]any) []cid.Cid { return appendBlobs(nil, record) }

func appendBlobs(found []cid.Cid, value any) []cid.Cid {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			found = appendBlobs(found, item)
		}
	case map[string]any:
		if value["$type"] == "blob" {
			return append(found, value["ref"].(atdata.CIDLink).CID()) // its form was checked when it was read
		}
		for _, member := range value {
			found = appendBlobs(found, member)
		}
	}
	return found
}
