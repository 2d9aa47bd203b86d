package hold

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

func TestGetRecord(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(1, 1)
	path := get + "?repo=%&collection=" + coll + "&rkey=k00"
	found := h.Want("GET", path, "", 200, "", "")
	if found["uri"] != "at://"+h.DID+"/"+coll+"/k00" || found["value"].(map[string]any)["text"] != "x" {
		t.Errorf("got %v", found)
	}
	h.Want("GET", path+"&cid="+found["cid"].(string), "", 200, "", "")
	h.Want("GET", path+"&cid=bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq", "", 400, "RecordNotFound", "Could not locate record: at://%/"+coll+"/k00")
	h.Want("GET", get+"?repo=%&collection="+coll+"&rkey=none", "", 400, "RecordNotFound", "at://%/"+coll+"/none")
	h.Want("GET", get+"?repo=did:web:other.example.com&collection="+coll+"&rkey=k00", "", 400, "InvalidRequest", "Could not locate record")
	h.Want("GET", get+"?repo=%&collection="+coll, "", 400, "InvalidRequest", `params: missing required key "rkey"`)
	h.Want("GET", get+"?repo=x&collection="+coll+"&rkey=k", "", 400, "InvalidRequest", "at $.repo")
}

func TestListRecords(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(25, 1)
	const list = "com.atproto.repo.listRecords"
	for _, reverse := range []bool{false, true} {
		var keys []string
		cursor := ""
		for {
			answer := h.Want("GET", fmt.Sprintf("%s?repo=%%&collection=%s&limit=12&reverse=%t&cursor=%s", list, coll, reverse, cursor), "", 200, "", "")
			for _, r := range answer["records"].([]any) {
				uri := r.(map[string]any)["uri"].(string)
				keys = append(keys, uri[strings.LastIndex(uri, "/")+1:])
			}
			next, more := answer["cursor"].(string)
			if !more {
				break
			}
			cursor = next
		}
		want := "k24"
		if reverse {
			want = "k00"
		}
		if len(keys) != 25 || keys[0] != want {
			t.Errorf("reverse %t: got %d keys %v", reverse, len(keys), keys)
		}
	}
	if answer := h.Want("GET", list+"?repo="+testHost+"&collection=com.example.none", "", 200, "", ""); len(answer["records"].([]any)) != 0 {
		t.Errorf("got %v", answer)
	}
	h.Want("GET", list+"?repo=%&collection="+coll+"&limit=101", "", 400, "InvalidRequest", "at $.limit")
	h.Want("GET", list+"?repo=did:web:other.example.com&collection="+coll, "", 400, "InvalidRequest", "Could not find repo: did:web:other.example.com")
}

func TestListRecordsLimit(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(25, 200_000)
	answer := h.Want("GET", "com.atproto.repo.listRecords?repo=%&limit=100&collection="+coll, "", 200, "", "")
	if n := len(answer["records"].([]any)); n != 6 || answer["cursor"] == nil {
		t.Errorf("got %d records of 200 kB and cursor %v, want 6, which exceed 1 MiB, and a cursor", n, answer["cursor"])
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(1, 1)
	answer := h.Want("GET", "com.atproto.repo.describeRepo?repo=%", "", 200, "", "")
	if answer["handle"] != testHost || answer["handleIsCorrect"] != true || fmt.Sprint(answer["collections"]) != "["+lexicon.NSIDProfile+" "+coll+"]" {
		t.Errorf("got %v", answer)
	}
	h.Want("GET", "com.atproto.repo.describeRepo?repo=other.example.com", "", 400, "RepoNotFound", "Could not find repo for DID: other.example.com")
	if answer := h.Want("GET", "com.atproto.server.describeServer", "", 200, "", ""); answer["did"] != h.DID {
		t.Errorf("got %v", answer)
	}
	if answer := h.Want("GET", "com.atproto.identity.resolveHandle?handle=HOLD.example.com", "", 200, "", ""); answer["did"] != h.DID {
		t.Errorf("got %v", answer)
	}
	h.Want("GET", "com.atproto.identity.resolveHandle?handle=other.example.com", "", 400, "HandleNotFound", "Unable to resolve handle")
}
