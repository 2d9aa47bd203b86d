package compare

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A row is one request, sent to both servers, and its answer. In the request,
// {did}, {access} and the like stand for the values of each server.
type row struct {
	name string

	get, post string // the method, with its query
	verb      string // another than these have

	body        string // of JSON, unless contentType says otherwise
	compress    bool   // the body, with gzip
	contentType string // of a post; "none": no such header
	header      map[string]string
	as          string // the header Authorization; "": the account for a post, nobody for a get; "nobody"

	want answer // of both

	ours *answer // of the hold, where it differs on purpose
	more string  // members that only the hold's body has, as shape shows them
	less string  // members that only the reference's body has
	why  string  // the reason for any of these

	moves bool              // the head of the repository is another one afterwards
	save  map[string]string // of the answer, for later rows: name to path ("results.0.cid")
	car   string            // what summary says of the archive in the body, of both
}

// answer is what is compared of one.
type answer struct {
	status int
	err    string // the name of the error
}

func (a answer) String() string { return strings.TrimSpace(fmt.Sprint(a.status, " ", a.err)) }

var ok = answer{200, ""}

// bad is a 400 with this error name.
func bad(name string) answer { return answer{400, name} }

var invalid = bad("InvalidRequest")

// differs is for a row's field ours.
func differs(status int, name string) *answer { return &answer{status, name} }

// unserved is how the hold answers to a method that it does not have.
var unserved = differs(501, "MethodNotImplemented")

const unknown = "the protocol has a status for it; the reference takes any method for one that it could pass on to another service"

const (
	applyWrites  = "com.atproto.repo.applyWrites"
	createRecord = "com.atproto.repo.createRecord"
	putRecord    = "com.atproto.repo.putRecord"
	deleteRecord = "com.atproto.repo.deleteRecord"
	post         = "app.bsky.feed.post"
	thing        = "com.example.thing" // a collection that no server has a schema for
)

// batch is an applyWrites body.
func batch(writes ...string) string { return batchWith(``, writes...) }

// batchWith is a batch with further members.
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

// many is n creates of things with keys of the server's choice.
func many(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = create(thing, "", fmt.Sprintf(`{"n":%d}`, i))
	}
	return list
}

// record is the body of createRecord, putRecord or deleteRecord.
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
		panic(err) // a row is not well-formed
	}
	return strings.TrimSpace(b.String())
}
