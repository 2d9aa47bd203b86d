package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// remoteRounds is a workload on the registry of a pair.
type remoteRounds struct {
	*remotePair
	*workload
	r *rand.Rand

	mu   sync.Mutex
	sent map[string]string // pushes whose call has reached the hold, as remotePush.image has them
}

// A registry and the hold that it reports to are killed at random moments of a random
// workload, and answers of the hold are lost. In the end each push is recorded once and
// counted once, and the registry has the answer to each of them.
func TestRemoteRounds(t *testing.T) {
	t.Parallel()
	h := newRemoteRounds(t)
	defer h.passPauses(t)()
	n := rounds(t, 4)
	for round := range n {
		h.pulls.Store(4)
		h.round(uint64(round))
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	h.resume()
	h.registry.waitDrained()
	h.hold.waitDrained()
	h.check(t)
	h.registry.stop()
	h.checkLog()
	for _, p := range h.problems {
		t.Error(p)
	}
}

func newRemoteRounds(t *testing.T) *remoteRounds {
	p := newRemotePair(t, "registries", "\nquota: {tiers: {large: {limit: 1GiB}}, default: large}")
	h := &remoteRounds{remotePair: p, workload: newWorkload(t, p.registry), sent: map[string]string{}}
	h.addRepository("oss/team/a")
	h.expected = append(h.expected, "a sink is paused; its events stay pending", "the system clock has jumped", "trying again")
	h.r = rand.New(rand.NewPCG(h.seed, 0))
	h.observe = h.note
	return h
}

// note notes a call that has reached the hold.
func (h *remoteRounds) note(c faultproxy.Call) {
	var in lexicon.NotifyManifestInput
	if c.Method != notifyManifest || json.Unmarshal(c.Input, &in) != nil || in.Operation != lexicon.OperationPush {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[fmt.Sprint(in.Repository, ":", in.Tag, "@", in.ManifestDigest)] += fmt.Sprint(" ", c.Status, " ", len(in.Manifest.Layers), string(c.Output))
}

// resume starts what is not running.
func (h *remoteRounds) resume() {
	h.proxy.End()
	if h.hold.cmd == nil {
		h.hold.startHold()
	}
	if h.registry.cmd == nil {
		h.registry.start()
	}
}

// round works for a while, mostly with a fault of the calls, and kills one of the two, both
// or none.
func (h *remoteRounds) round(round uint64) {
	h.resume()
	fault := "none"
	if h.r.IntN(4) > 0 {
		f := h.randomFault()
		fault = f.String()
		h.proxy.Start(f)
	}
	var victims []*server
	for _, s := range []*server{h.registry, h.hold} {
		if h.r.IntN(3) > 0 {
			victims = append(victims, s)
		}
	}
	until, end := h.steps.Load()+20+h.r.Int64N(60), time.Now().Add(2*time.Second)
	moment := time.Duration(h.r.IntN(50_000)) * time.Microsecond
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for h.steps.Load() < until && time.Now().Before(end) {
			pause()
		}
		time.Sleep(moment)
		for _, s := range victims {
			s.cmd.Process.Kill()
		}
	}()
	h.work(round, stop)
	<-stop
	h.t.Logf("round %d: %d operations so far, fault: %s, %d killed", round, h.steps.Load(), fault, len(victims))
	for _, s := range victims {
		s.kill()
	}
	h.checkLogOf(h.hold)
	h.checkLogOf(h.registry)
}

func (h *remoteRounds) randomFault() faultproxy.Fault {
	kinds := []faultproxy.Kind{faultproxy.Cut, faultproxy.Truncate, faultproxy.Delay, faultproxy.BadGateway, faultproxy.HTML, faultproxy.Endless, faultproxy.RetryAfter}
	f := faultproxy.Fault{Kind: kinds[h.r.IntN(len(kinds))], Method: notifyManifest}
	f.Delivered = f.Kind.Delivers() && h.r.IntN(3) > 0
	switch f.Kind {
	case faultproxy.Delay:
		f.For = time.Duration(h.r.IntN(300)) * time.Millisecond
	case faultproxy.RetryAfter:
		f.For = time.Second
	}
	if h.r.IntN(4) == 0 {
		f.Method = ""
	}
	return f
}

// pathAtHold is the path that a repository of the registry has in the hold's API.
func (h *remoteRounds) pathAtHold(repository string) string {
	return strings.ReplaceAll(ownerOf(h.registry, repository), "%", "%25") + "/" + repository
}

// ownerOf returns the owner of a repository of a registry.
func ownerOf(registry *server, repository string) string {
	if strings.HasPrefix(repository, "oss/team/") {
		return team
	}
	return unescaped(registry.did)
}

// check compares the pushes and pulls of the registry with those that the hold has.
func (h *remoteRounds) check(t *testing.T) {
	t.Helper()
	reported := map[string]int{} // of each push, as remotePush.image has it
	created := map[string]int{}  // layers, by owner and digest
	uncertain := map[string]bool{}
	counted, dropped := map[string]int64{}, map[string]int64{}
	for _, push := range h.registry.remotePushes() {
		manifest := ownerOf(h.registry, push.Repository) + "@" + push.Digest
		switch {
		case !public(push.Repository):
			if push.State != "counted" || push.Remote != nil {
				t.Errorf("a private push: %+v", push)
			}
		case push.Remote == nil && push.Reason == "not in storage any more":
			// The manifest was deleted before it was reported, or before a call whose answer was lost was repeated.
			if h.sent[push.image()] != "" {
				uncertain[push.image()], uncertain[manifest] = true, true
				dropped[push.Repository]++
			}
		default:
			checkAnswer(t, &push)
			reported[push.image()]++
			counted[push.Repository]++
			if push.Remote != nil && push.Remote.LayersCreated != nil {
				created[manifest] += *push.Remote.LayersCreated
			}
		}
	}
	h.checkPushesAtHold(t, reported, uncertain)
	h.checkCountsAtHold(t, counted, dropped)
	h.checkRecordsAtHold(t, created, uncertain)
	h.checkHealth(t)
	h.hold.verifyRepo()
	t.Logf("%d pushes were reported, %d may have been before their manifest was deleted", len(reported), len(dropped))
}

// checkAnswer checks each field of the hold's answer to a push.
func checkAnswer(t *testing.T, push *remotePush) {
	t.Helper()
	a := push.Remote
	if push.State != "done" || push.Reason != "" || a == nil || !a.Success || a.Operation != "push" || !a.StatsUpdated ||
		a.LayersCreated == nil || push.LayersRecorded == nil || *a.LayersCreated != *push.LayersRecorded ||
		*a.LayersCreated != 0 && *a.LayersCreated != push.Layers || a.PostCreated == nil || *a.PostCreated || a.PostURI != "" {
		t.Errorf("push %+v, answer %+v", push, a)
	}
}

// checkPushesAtHold checks that the hold lists each reported push as often as the registry,
// and no others.
func (h *remoteRounds) checkPushesAtHold(t *testing.T, reported map[string]int, uncertain map[string]bool) {
	t.Helper()
	got := map[string]int{}
	for _, push := range h.hold.remotePushes() {
		for _, owner := range []string{unescaped(h.registry.did), team} {
			push.Repository = strings.TrimPrefix(push.Repository, owner+"/")
		}
		got[push.image()]++
	}
	for image, want := range reported {
		if n := got[image]; n < want || n > want && !uncertain[image] {
			t.Errorf("%s: %d pushes at the hold, want %d", image, n, want)
		}
		delete(got, image)
	}
	for image, n := range got {
		if !uncertain[image] {
			t.Errorf("%s: %d pushes at the hold, which were not reported", image, n)
		}
	}
}

// checkCountsAtHold checks the counts of each repository.
func (h *remoteRounds) checkCountsAtHold(t *testing.T, counted, dropped map[string]int64) {
	t.Helper()
	for _, name := range h.names {
		if h.repos[name].put+h.repos[name].got == 0 || !public(name) {
			continue // the API may not list it, or it is not reported
		}
		pulls, got := classes(t, h.registry, name)["pull"], classes(t, h.hold, h.pathAtHold(name))
		for end := time.Now().Add(20 * time.Second); got["pull"]+got["child"] < pulls && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			got = classes(t, h.hold, h.pathAtHold(name)) // pulls get into the journal after their answers
		}
		if got["push"] < counted[name] || got["push"] > counted[name]+dropped[name] {
			t.Errorf("%s: %d pushes are counted at the hold, want %d (%d uncertain)", name, got["push"], counted[name], dropped[name])
		}
		// The hold may know an index that the registry did not know when its child was pulled.
		if got["pull"]+got["child"] != pulls {
			t.Errorf("%s: %v are counted at the hold, want %d pulls", name, got, pulls)
		}
	}
	for name := range h.hold.repositories(h.hold.token()...) {
		if strings.Contains(name, "/private/") {
			t.Errorf("the hold lists %s", name)
		}
	}
}

// classes returns the counts of a repository by class; none if it is not known.
func classes(t *testing.T, s *server, repository string) map[string]int64 {
	t.Helper()
	res, body, err := s.do("GET", "/tidings/api/v1/repositories/"+repository, "", nil, s.token()...)
	var answer struct{ Counts map[string]int64 }
	if err != nil || res.StatusCode != http.StatusNotFound && json.Unmarshal(body, &answer) != nil {
		t.Fatalf("%s: %s %v", repository, body, err)
	}
	return answer.Counts
}

// checkRecordsAtHold checks that the layers of each reported image have one record, which
// the answers count, and that they are what the quota counts.
func (h *remoteRounds) checkRecordsAtHold(t *testing.T, created map[string]int, uncertain map[string]bool) {
	t.Helper()
	records, sizes := map[string]map[string]int{}, map[string]map[string]int64{}
	for _, r := range h.hold.records(t, h.hold.did, layerCollection) {
		owner := r.Value["userDid"].(string)
		manifest := owner + "@sha256:" + r.Value["manifest"].(string)[strings.LastIndexByte(r.Value["manifest"].(string), '/')+1:]
		if records[manifest] == nil {
			records[manifest] = map[string]int{}
		}
		if sizes[owner] == nil {
			sizes[owner] = map[string]int64{}
		}
		layer := r.Value["digest"].(string)
		records[manifest][layer]++
		sizes[owner][layer] = int64(r.Value["size"].(float64))
	}
	for manifest, n := range created {
		_, digest, _ := strings.Cut(manifest, "@")
		want := h.layersOf(digest)
		if n != len(want) && !uncertain[manifest] || n > len(want) {
			for i, s := range h.sent {
				if strings.HasSuffix(i, digest) {
					t.Error(i, s)
				}
			}
			t.Errorf("%s: the answers say that %d records were created, want %d", manifest, n, len(want))
		}
		for _, layer := range want {
			if got := records[manifest][layer]; got != 1 {
				t.Errorf("%s: %d records of %s, want 1", manifest, got, layer)
			}
		}
		if len(records[manifest]) != len(want) {
			t.Errorf("%s: %d layers have records, want %d", manifest, len(records[manifest]), len(want))
		}
		delete(records, manifest)
	}
	for manifest := range records {
		if !uncertain[manifest] {
			t.Errorf("records of %s, which was not reported", manifest)
		}
	}
	for _, owner := range []string{unescaped(h.registry.did), team} {
		h.hold.checkQuota(t, owner, sizes[owner])
	}
}

// checkQuota checks that the quota of an owner counts layers with these sizes.
func (s *server) checkQuota(t *testing.T, owner string, layers map[string]int64) {
	t.Helper()
	want := lexicon.Quota{UniqueBlobs: int64(len(layers))}
	for _, size := range layers {
		want.TotalSize += size
	}
	var got lexicon.Quota
	s.json(t, "/xrpc/io.atcr.hold.getQuota?userDid="+url.QueryEscape(owner), &got)
	if got.UniqueBlobs != want.UniqueBlobs || got.TotalSize != want.TotalSize {
		t.Errorf("getQuota of %s: %+v, want %+v", owner, got, want)
	}
}

// checkHealth checks what the registry reports of the hold, and that no event was given up.
func (h *remoteRounds) checkHealth(t *testing.T) {
	t.Helper()
	var health struct {
		Status string
		Sinks  []struct {
			Sink        string
			DeadLetters int
		}
		Remote struct{ Status, Hold, DID, Endpoint, Keys string }
	}
	h.registry.json(t, "/tidings/api/v1/health", &health, h.registry.token()...)
	_, port, _ := strings.Cut(h.hold.host, ":")
	if r := health.Remote; health.Status != "ok" || r.Status != "ok" || r.Hold != unescaped(h.hold.did) || r.DID != unescaped(h.registry.did) || r.Keys != "honored" || r.Endpoint != "http://localhost:"+port {
		t.Errorf("health %+v", health)
	}
	for _, sink := range health.Sinks {
		if sink.DeadLetters > 0 {
			t.Errorf("%s has %d dead letters", sink.Sink, sink.DeadLetters)
		}
	}
}
