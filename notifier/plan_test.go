package notifier

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier/ledger"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each manifest in testdata/manifests has its plan next to it in
// testdata/plans: its kind, the records it gets, whether it may be announced.
func TestPlan(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../testdata/manifests/*.json")
	if err != nil || len(files) < 11 {
		t.Fatalf("%d manifests found (%v)", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var head struct {
				MediaType string `json:"mediaType"`
			}
			if err := json.Unmarshal(payload, &head); err != nil {
				t.Fatal(err)
			}
			if head.MediaType == "" {
				head.MediaType = v1.MediaTypeImageManifest // it is in the request's header then
			}
			info, err := describe(head.MediaType, payload)
			if err != nil {
				t.Fatal(err)
			}
			e := &Event{Version: eventVersion, TID: 1_700_000_000_000_000, ClockID: 7, Kind: kindOf(&info, "v1"), Class: "push"}
			e.Operation, e.Repository, e.Tag, e.UserDID = opPush, "oss/app", "v1", owner
			e.ManifestDigest, e.Manifest = digest.FromBytes(payload).String(), info
			p := plan(e)
			entry, _ := ledger.Entry{}.Push(ledger.Push{Repository: e.Repository, First: e.TID, ClockID: e.ClockID, Records: len(p.Records)})
			writes, err := recordWrites(e.UserDID, e.ManifestDigest, p.Records, entry)
			if err != nil {
				t.Fatal(err)
			}
			keys := make([]string, len(writes))
			for i, w := range writes {
				keys[i] = w.Collection + "/" + w.RKey
			}
			got, err := json.MarshalIndent(map[string]any{
				"kind": e.Kind, "plan": p, "keys": keys, "summary": e.summary(),
			}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("..", "testdata", "plans", name+".golden")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bytes.TrimSpace(want), got) {
				t.Errorf("plan of %s:\n%s\nwant\n%s", name, got, want)
			}
		})
	}
}
