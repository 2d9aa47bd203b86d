package records

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/stats"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The plan of each manifest in testdata/manifests is in testdata/plans.
func TestPlan(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../testdata/manifests/lists/pushes.json")
	if err != nil {
		t.Fatal(err)
	}
	var pushes []struct{ File, MediaType, Tag string }
	if err := json.Unmarshal(raw, &pushes); err != nil {
		t.Fatal(err)
	}
	if len(pushes) < 11 {
		t.Fatalf("only %d manifests", len(pushes))
	}
	for _, push := range pushes {
		name := strings.TrimSuffix(push.File, ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload, err := os.ReadFile(filepath.Join("../../testdata/manifests", push.File))
			if err != nil {
				t.Fatal(err)
			}
			info, err := event.ReadManifest(push.MediaType, payload)
			if err != nil {
				t.Fatal(err)
			}
			e := &event.Event{Version: event.Version, TID: 1_700_000_000_000_000, ClockID: 7, Kind: event.KindOf(&info, push.Tag), Class: "push"}
			e.Operation, e.Repository, e.Tag, e.UserDID = event.OpPush, "oss/app", push.Tag, "did:web:registry.test"
			e.ManifestDigest, e.Manifest = digest.FromBytes(payload).String(), info
			p := event.PlanOf(e)
			entry := ledger.Entry{First: e.TID, ClockID: e.ClockID, Records: len(p.Records)}
			writes, err := Creates(e.UserDID, e.ManifestDigest, p.Records, entry)
			if err != nil {
				t.Fatal(err)
			}
			keys := make([]string, len(writes))
			for i, w := range writes {
				keys[i] = w.Collection + "/" + w.RKey
			}
			got, err := json.MarshalIndent(map[string]any{
				"kind": e.Kind, "plan": p, "keys": keys, "summary": summary(e),
			}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("..", "..", "testdata", "plans", name+".golden")
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

// summary is an event as the API shows it.
func summary(e *event.Event) stats.Push {
	row := pushrow.New(event.Sequenced{Event: e})
	return row.Push()
}
