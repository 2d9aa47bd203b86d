package stats

import "time"

// Push is a push in the API.
type Push struct {
	ID             string    `json:"id"`
	Time           time.Time `json:"time"`
	Repository     string    `json:"repository"`
	Tags           []string  `json:"tags"`
	Digest         string    `json:"digest"`
	Kind           string    `json:"kind"`              // image, index, chart, signature, attestation or artifact
	Size           int64     `json:"size"`              // bytes to pull of the image, of an index of its largest; 0: not known
	Platforms      []string  `json:"platforms"`         // such as "linux/arm64"
	Layers         int       `json:"layers"`            // of that image
	LayersRecorded *int      `json:"layersRecorded"`    // null: not known yet, or not to be published
	PostURI        string    `json:"postUri,omitempty"` // at://… of the announcement
	State          string    `json:"state"`             // "pending", "done", "failed" or "counted", if it is only counted
	Reason         string    `json:"reason,omitempty"`  // why it failed, why there is no record or no post, or which layers have none
}
