package lexicon

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"

	jsonexact "github.com/go-json-experiment/json"
)

// Stats is an io.atcr.hold.stats record: how often one repository of one owner was
// pulled from and pushed to. Its key is StatsKey. Times are RFC 3339 in UTC.
type Stats struct {
	OwnerDID   string `json:"ownerDid"`
	Repository string `json:"repository"` // at most 256 bytes
	PullCount  int64  `json:"pullCount"`
	PushCount  int64  `json:"pushCount"`
	LastPull   string `json:"lastPull,omitempty"`
	LastPush   string `json:"lastPush,omitempty"`
	UpdatedAt  string `json:"updatedAt"`
}

// MarshalJSON adds the $type.
func (s Stats) MarshalJSON() ([]byte, error) {
	type members Stats
	return json.Marshal(struct {
		Type string `json:"$type"`
		members
	}{NSIDStats, members(s)})
}

// ReadStats decodes and validates a record of DAG-CBOR.
func ReadStats(cbor []byte) (s Stats, err error) {
	object, err := Unmarshal(cbor)
	if err != nil {
		return s, err
	}
	if _, err := ValidateRecord(NSIDStats, object); err != nil {
		return s, err
	}
	raw, err := appendJSON(nil, object)
	if err != nil {
		return s, err
	}
	// encoding/json would accept "PullCount" as pullCount, which was not validated.
	return s, jsonexact.Unmarshal(raw, &s)
}

// statsKeys encodes keys without padding, since a record key cannot have a "=".
// ATCR does not say which case it uses; a reader finds a record by its members.
var statsKeys = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// StatsKey returns the record key of a Stats: 26 characters that depend on the owner
// and the repository, so that there is one record for each.
func StatsKey(owner, repository string) string {
	sum := sha256.Sum256([]byte(owner + "/" + repository))
	return statsKeys.EncodeToString(sum[:16])
}
