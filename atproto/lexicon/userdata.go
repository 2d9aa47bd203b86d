package lexicon

import (
	jsonexact "github.com/go-json-experiment/json"
)

// Errors of io.atcr.hold.exportUserData and deleteUserData.
const (
	ErrorAuthRequired   = "AuthRequired"   // the call has no valid token of an account that has data
	ErrorDeletionFailed = "DeletionFailed" // the deletion is not recorded
)

// DeletedUserData is the output of io.atcr.hold.deleteUserData.
type DeletedUserData struct {
	Success       bool `json:"success"`
	CrewDeleted   bool `json:"crewDeleted"`
	LayersDeleted int  `json:"layersDeleted"` // records
	StatsDeleted  int  `json:"statsDeleted"`  // records
}

// UserLayer is a layer record in the output of io.atcr.hold.exportUserData.
type UserLayer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
	Manifest  string `json:"manifest,omitempty"` // at:// URI
	CreatedAt string `json:"createdAt"`
}

// UserStats is a stats record in the output of io.atcr.hold.exportUserData.
type UserStats struct {
	Repository string `json:"repository"`
	PullCount  int64  `json:"pullCount"`
	PushCount  int64  `json:"pushCount"`
	LastPull   string `json:"lastPull,omitempty"`
	LastPush   string `json:"lastPush,omitempty"`
	UpdatedAt  string `json:"updatedAt"`
}

// UserPost is a post in the output of io.atcr.hold.exportUserData.
type UserPost struct {
	URI       string `json:"uri"`
	Text      string `json:"text"`
	CreatedAt string `json:"createdAt"`
}

// ReadUserLayer returns the layer in a record of DAG-CBOR. It is false unless the record is
// the user's and fits into the output.
func ReadUserLayer(cbor []byte, user string) (l UserLayer, ok bool) {
	ok = readUserRecord("layer", cbor, "userDid", user, &l)
	return l, ok
}

// ReadUserStats returns the counts in a record of DAG-CBOR. It is false unless the record is
// the user's and fits into the output.
func ReadUserStats(cbor []byte, user string) (s UserStats, ok bool) {
	ok = readUserRecord("stats", cbor, "ownerDid", user, &s)
	return s, ok
}

func readUserRecord(def string, cbor []byte, member, user string, into any) bool {
	object, err := Unmarshal(cbor)
	if err != nil || object[member] != user || checkExported(def, object) != nil {
		return false
	}
	raw, err := appendJSON(nil, object)
	return err == nil && jsonexact.Unmarshal(raw, into) == nil
}

// checkExported checks that a record can be in the output. The record's own schema would
// refuse layers of the older form.
func checkExported(def string, object map[string]any) error {
	schema, base, _ := schemas().resolve("#"+def, NSIDExportUserData)
	return schemas().check(schema, base, object, "$")
}

// ReadUserPost returns the post in a record of DAG-CBOR, without its URI. It is false unless
// a facet mentions the user.
func ReadUserPost(cbor []byte, user string) (p UserPost, ok bool) {
	object, err := Unmarshal(cbor)
	if err != nil || !mentions(object, user) {
		return p, false
	}
	p.Text, _ = object["text"].(string)
	p.CreatedAt, _ = object["createdAt"].(string)
	return p, CheckFormat("datetime", p.CreatedAt) == nil
}

func mentions(post map[string]any, user string) bool {
	facets, _ := post["facets"].([]any)
	for _, facet := range facets {
		object, _ := facet.(map[string]any)
		features, _ := object["features"].([]any)
		for _, feature := range features {
			f, _ := feature.(map[string]any)
			if f["$type"] == "app.bsky.richtext.facet#mention" && f["did"] == user {
				return true
			}
		}
	}
	return false
}
