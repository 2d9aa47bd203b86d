package stats

import (
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Push is a push in the API.
type Push struct {
	ID             string    `json:"id"`
	Time           time.Time `json:"time"`
	Repository     string    `json:"repository"`
	Tags           []string  `json:"tags"`
	Digest         string    `json:"digest"`
	Kind           string    `json:"kind"`              // image, index, chart, signature, attestation or artifact
	Size           int64     `json:"size"`              // bytes to pull, of the largest image of an index; 0: unknown
	Platforms      []string  `json:"platforms"`         // such as "linux/arm64"
	Layers         int       `json:"layers"`            // of that image
	LayersRecorded *int      `json:"layersRecorded"`    // null: not known yet, or not published
	PostURI        string    `json:"postUri,omitempty"` // at://… of the announcement
	// Remote is the answer of the hold of remote; nil: there is none.
	Remote *lexicon.NotifyManifestOutput `json:"remote,omitempty"`
	State  string                        `json:"state"`            // "pending", "done", "failed" or "counted", if it is only counted
	Reason string                        `json:"reason,omitempty"` // why it failed, why there is no record or no post, or which layers have none
}

// pushes serves GET pushes?limit=. It filters the result again, so that a defect in
// Config.Pushes does not disclose names of private repositories.
func (a *api) pushes(w http.ResponseWriter, q *http.Request) {
	caller, ok := a.access(w, q)
	if !ok {
		return
	}
	limit, err := number(q, "limit", 50, maxLimit)
	if err != nil {
		badRequest(w, err)
		return
	}
	release, err := a.acquire(q.Context())
	if err != nil {
		a.unavailable(w, err)
		return
	}
	defer release()
	list, err := a.Pushes(q.Context(), limit, caller.all)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	out := struct {
		Pushes []Push `json:"pushes"`
	}{Pushes: []Push{}}
	for _, p := range list {
		if len(out.Pushes) == limit || !caller.visible(p.Repository) {
			continue
		}
		if p.Tags == nil {
			p.Tags = []string{}
		}
		if p.Platforms == nil {
			p.Platforms = []string{}
		}
		out.Pushes = append(out.Pushes, p)
	}
	respond(w, out)
}
