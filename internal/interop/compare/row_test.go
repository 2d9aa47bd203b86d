package compare

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A row is a request, sent to both servers, with the expected response. In the request,
// {did}, {access} and so on are replaced by the variables of each server.
type row struct {
	name string

	get, post string // the XRPC method with its query
	verb      string // overrides GET or POST

	body        string // JSON, unless contentType is set
	compress    bool   // the body, with gzip
	contentType string // of a post; "none": no header
	header      map[string]string
	as          string // Authorization header; "": the account for a post, none for a get; "anonymous": none

	want answer // of both servers

	ours *answer // of the hold, if it differs on purpose
	more string  // members that only the hold's body has, in the format of shape
	less string  // members that only the reference's body has
	why  string  // the reason for the difference

	moves bool              // the head of the repo changes
	save  map[string]string // variables to set from the response: name to path ("results.0.cid")
	car   string            // summary of the CAR in both bodies
}

// answer is the compared part of a response.
type answer struct {
	status int
	err    string // the name of the error
}

func (a answer) String() string { return strings.TrimSpace(fmt.Sprint(a.status, " ", a.err)) }

var ok = answer{200, ""}

// badRequest is a 400 with an error name.
func badRequest(name string) answer { return answer{400, name} }

var invalid = badRequest("InvalidRequest")

// differs is for the field ours of a row.
func differs(status int, name string) *answer { return &answer{status, name} }

// unserved is the hold's response to unknown methods.
var unserved = differs(501, "MethodNotImplemented")

const unknown = "the protocol has a status for it; the reference treats unknown methods as ones to proxy to another service"

const (
	applyWrites  = "com.atproto.repo.applyWrites"
	createRecord = "com.atproto.repo.createRecord"
	putRecord    = "com.atproto.repo.putRecord"
	deleteRecord = "com.atproto.repo.deleteRecord"
	post         = "app.bsky.feed.post"
	thing        = "com.example.thing" // a collection without a schema
)

// batch returns a body of applyWrites.
func batch(writes ...string) string { return batchWith(``, writes...) }

// batchWith is batch with more members.
func batchWith(members string, writes ...string) string {
	if members != "" {
		members += ","
	}
	return `{"repo":"{did}",` + members + `"writes":[` + strings.Join(writes, ",") + `]}`
}

func create(collection, rkey, value string) string { return write("create", collection, rkey, value) }
func update(collection, rkey, value string) string { return write("update", collection, rkey, value) }
func remove(collection, rkey string) string        { return write("delete", collection, rkey, "") }

func write(action, collection, rkey, value string) string {
	w := map[string]any{"$type": applyWrites + "#" + action, "collection": collection}
	if rkey != "" {
		w["rkey"] = rkey
	}
	if value != "" {
		w["value"] = json.RawMessage(value)
	}
	return text(w)
}

// many returns n creates with keys that the server chooses.
func many(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = create(thing, "", fmt.Sprintf(`{"n":%d}`, i))
	}
	return list
}

// record returns a body of createRecord, putRecord or deleteRecord.
func record(collection, rkey, value, members string) string {
	body := map[string]any{"repo": "{did}", "collection": collection}
	if rkey != "" {
		body["rkey"] = rkey
	}
	if value != "" {
		body["record"] = json.RawMessage(value)
	}
	all := text(body)
	if members != "" {
		all = all[:len(all)-1] + "," + members + "}"
	}
	return all
}

func text(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // a row is malformed
	}
	return strings.TrimSpace(b.String())
}
