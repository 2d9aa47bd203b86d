package lexicon

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"strings"
)

// Stats is an io.atcr.hold.stats record: how often one owner's repository was
// pulled and pushed. Times are RFC 3339 in UTC, empty when it never happened.
type Stats struct {
	OwnerDID   string `json:"ownerDid"`
	Repository string `json:"repository"`
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

// StatsKey is the key of a Stats record: 16 bytes of SHA-256 over
// "<owner>/<repository>" in lower-case base32 without padding.
func StatsKey(owner, repository string) string {
	sum := sha256.Sum256([]byte(owner + "/" + repository))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}
