package middleware

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// The counts of public repositories are published at the first start with stats.records
// and shown in the health report.
func TestStatsRecords(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	did, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	open := func(interval string) *testRegistry {
		return serveTidings(t, configuration.Parameters{
			"data": data, "public": []any{"oss/**"},
			"hold": map[string]any{"hostname": "localhost:5000", "reserve": "1MiB"}, "stats": map[string]any{"records": interval},
		})
	}
	r := open("off")
	r.recorder = &fakeRecorder{alias: map[string]string{}}
	for _, repository := range []string{"oss/app", "secret/app"} {
		r.mustPush(repository, "v1", r.image(repository, "IMAGE", v1.MediaTypeImageManifest))
		if a := r.do("GET", "/v2/"+repository+"/manifests/v1", nil, "Accept", acceptAll, "X-Forwarded-For", "198.51.100.1"); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	var counted struct{ Pulls, Pushes int }
	eventually(t, func() bool {
		if a := r.do("GET", "/tidings/api/v1/repositories/oss/app", nil); a.status == http.StatusOK {
			_ = json.Unmarshal(a.body, &counted)
		}
		return counted.Pulls == 1 && counted.Pushes == 1
	})
	var report Health
	if r.api("health", &report); report.Stats != nil {
		t.Errorf("health has %+v although no records are written", report.Stats)
	}
	if err := r.handler.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	r = open("6h")
	eventually(t, func() bool {
		r.api("health", &report)
		return report.Stats.Status == statusOK && !report.Stats.Last.IsZero()
	})
	var list struct {
		Records []struct{ Value lexicon.Stats }
	}
	a := r.do("GET", "/xrpc/com.atproto.repo.listRecords?collection=io.atcr.hold.stats&repo="+url.QueryEscape(did), nil)
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	if len(list.Records) != 1 {
		t.Fatalf("got %d records, want 1", len(list.Records))
	}
	if s := list.Records[0].Value; s.OwnerDID != did || s.Repository != "oss/app" || s.PullCount != 1 || s.PushCount != 1 || s.LastPull == "" || s.LastPush == "" {
		t.Errorf("got %+v", s)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("the condition does not hold after a minute")
}

// An account that has moved is waited for, so that each attempt is not a failure.
func TestStatsRecordsOfMovedAccount(t *testing.T) {
	t.Parallel()
	r := &runtime{options: &config.Options{Hold: &config.Hold{MovedTo: &config.MovedTo{}}}}
	if err := r.readyForStats(); !errors.Is(err, repo.ErrDeactivated) {
		t.Errorf("got %v", err)
	}
}

func TestHealthOfStatsRecords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status          statsrecords.Status
		want, wantStats string
	}{
		{statsrecords.Status{}, statusOK, statusOK},
		{statsrecords.Status{Waiting: true}, statusOK, "waiting"},
		{statsrecords.Status{Err: http.ErrAbortHandler}, statusDegraded, "failing"},
	} {
		h := Health{Status: statusOK}
		if h.addStats(c.status); h.Status != c.want || h.Stats.Status != c.wantStats {
			t.Errorf("%+v: health %s, stats %s; want %s, %s", c.status, h.Status, h.Stats.Status, c.want, c.wantStats)
		}
	}
}
