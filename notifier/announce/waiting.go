package announce

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A version is an image with the tags that it is announced under.
type version struct {
	Repository string     `json:"repository"`
	Digest     string     `json:"digest"`
	Seqs       []uint64   `json:"seqs"`
	Tags       []string   `json:"tags"` // in the order of their pushes; empty if an earlier version of the program wrote it
	Time       time.Time  `json:"time"`
	TID        int64      `json:"tid"`
	ClockID    uint       `json:"clockId"`
	Local      bool       `json:"local"`          // the image is in this registry's storage
	Facts      post.Facts `json:"facts,omitzero"` // except those that depend on the tags; none in a summary
}

func (v *version) stamp() event.Stamp { return event.Stamp{At: v.Time, TID: v.TID, ID: v.ClockID} }

// Versions that wait to be announced
//
//	state.Waiting <group><image hash>   version, 500 bytes, 250 in the summary's group
//
// A group is the hash of a repository, whose versions wait for the end of its cooldown, or
// zeros, for those that wait for the next summary. A digest waits once in a repository. Its
// further pushes are added to it, with their tags.
const (
	maxOfRepository = 200    // versions of a repository that wait for its cooldown; further ones wait for a summary
	maxOfSummary    = 2_000  // versions of a summary; it is written early if there are more
	maxWaiting      = 10_000 // versions that wait for cooldowns; further ones wait for a summary
	maxPushes       = 100    // pushes of a version that waits; further ones get their result at once
)

type groupID [16]byte

// summaryGroup is the group of the versions that wait for a summary.
var summaryGroup groupID

func groupOf(repository string) groupID {
	h := sha256.Sum256([]byte(repository))
	return groupID(h[:16])
}

func waitingKey(g groupID, repository, digest string) []byte {
	return state.ImageKey(state.Waiting+string(g[:]), repository, digest)
}

// listWaiting returns the versions of a group, the oldest first.
func listWaiting(db state.Store, g groupID) ([]version, error) {
	var all []version
	err := db.Scan(state.Prefix(state.Waiting+string(g[:])), func(_, val []byte) error {
		var v version
		err := json.Unmarshal(val, &v)
		all = append(all, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the versions that wait to be announced: %w", err)
	}
	slices.SortFunc(all, compareVersions)
	return all, nil
}

// compareVersions compares versions by their first pushes.
func compareVersions(a, b version) int { return slices.Compare(a.Seqs, b.Seqs) }

// A stamp is an event.Stamp on disk.
type stamp struct {
	At      time.Time `json:"at,omitzero"`
	TID     int64     `json:"tid,omitempty"`
	ClockID uint      `json:"clockId,omitempty"`
}

func (s stamp) event() event.Stamp { return event.Stamp{At: s.At, TID: s.TID, ID: s.ClockID} }

// newStamp is the stamp of what happens now. Its age is not changed by jumps of the clock.
func newStamp(c *event.Clock) stamp {
	now, tid, id := c.Reserve(1)
	return stamp{now.UTC(), tid, id}
}

// A cooldown is the row of a repository with a post that was put into the outbox within the
// cooldown, or with versions that wait.
type cooldown struct {
	Repository string `json:"repository"`
	Posted     stamp  `json:"posted"`
	Waiting    int    `json:"waiting,omitempty"`
}

// A queue is the number of waiting versions, and the state of the summary.
type queue struct {
	Cooling int    `json:"cooling"`       // versions that wait for the end of a cooldown
	Summary int    `json:"summary"`       // versions that wait for a summary
	Late    int    `json:"late"`          // of them: those that were too old for a post
	Day     string `json:"day,omitempty"` // of the first that waits because of the daily limit
	Last    stamp  `json:"last,omitzero"` // of the last summary
}

func cooldownKey(repository string) []byte {
	g := groupOf(repository)
	return append([]byte(state.Cooldowns), g[:]...)
}

// mergeTags adds tags that are not in the list yet.
func mergeTags(tags, more []string) []string {
	for _, t := range more {
		if !slices.Contains(tags, t) && len(tags) < maxPushes {
			tags = append(tags, t)
		}
	}
	return tags
}
