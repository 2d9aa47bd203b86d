package relay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	relaytest "github.com/bluesky-social/indigo/cmd/relay/testing"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// world is a hold, a relay that subscribes to it, and a consumer of the relay.
type world struct {
	*account
	subscriber
	consumer *relaytest.Consumer
	history
}

// newWorld starts them. Now is the hold's clock; nil: time.Now.
func newWorld(t *testing.T, now func() time.Time) *world {
	t.Helper()
	w := &world{account: newAccount(t, now), history: newHistory()}
	w.subscriber = newSubscriber(t, w.identity())
	w.consumer = relaytest.NewConsumer(fmt.Sprintf("ws://localhost:%d", w.relay.Port))
	w.consumer.Timeout = timeout
	if err := w.consumer.Connect(t.Context(), -1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.consumer.Shutdown)
	if err := w.relay.Relay.SubscribeToHost(t.Context(), w.addr, true, true); err != nil {
		t.Fatal(err)
	}
	w.subscribed()
	return w
}

func (w *world) write(commits int) {
	w.Helper()
	for range commits {
		w.apply(w.next()...)
	}
}

// empty deletes all records.
func (w *world) empty() {
	w.Helper()
	for keys := range slices.Chunk(w.have, 200) {
		var writes []repo.Write
		for _, key := range keys {
			writes = append(writes, note(repo.Delete, key, 0))
		}
		w.apply(writes...)
	}
	w.have = nil
}

// synced waits until the relay has the hold's head.
func (w *world) synced() {
	w.Helper()
	head := w.repo.Head()
	eventually(w.T, "the relay has the head", func() bool {
		return w.knows(head.DID, head.Rev, head.Commit.String(), head.Data.String())
	})
}

// relayed returns the events that the relay has emitted, one a line.
func (w *world) relayed(count int) []string {
	w.Helper()
	events, err := w.consumer.ConsumeEvents(count)
	if err != nil {
		w.Fatalf("%v; %d of %d events; warnings of the relay: %q", err, w.consumer.Count(), count, w.warned.take())
	}
	var lines []string
	for _, e := range events {
		switch {
		case e.RepoIdentity != nil:
			lines = append(lines, "#identity")
		case e.RepoAccount != nil:
			lines = append(lines, fmt.Sprint("#account ", e.RepoAccount.Active))
		case e.RepoSync != nil:
			lines = append(lines, "#sync "+e.RepoSync.Rev)
		case e.RepoCommit != nil:
			lines = append(lines, "#commit "+e.RepoCommit.Rev+" "+e.RepoCommit.Commit.String())
		}
	}
	return lines
}

func (w *world) noWarnings() {
	w.Helper()
	if warned := w.warned.take(); len(warned) > 0 {
		w.Errorf("warnings of the relay: %s", strings.Join(warned, "\n"))
	}
}

// A strict relay that does not know the account accepts its first events and all
// commits, resumes from its cursor after a restart of the hold, and follows it after an
// old backup is restored.
func TestRelay(t *testing.T) {
	w := newWorld(t, nil)

	// A new relay.
	if err := w.repo.Notify(t.Context(), repo.Identity, repo.Account, repo.Sync); err != nil {
		t.Fatal(err)
	}
	want := []string{"#identity", "#account true", "#sync " + w.repo.Head().Rev}
	commits := func(write func()) {
		t.Helper()
		before := w.repo.Head().Seq
		write()
		want = append(want, w.logged(before)...)
	}
	commits(func() { w.write(40); w.empty(); w.write(20) })
	w.synced()
	if got := w.relayed(len(want)); !slices.Equal(got, want) {
		t.Errorf("relayed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	w.noWarnings()

	// A restart: the relay receives the commits that were written before it reconnects.
	w.backup()
	commits(func() { w.write(10) })
	w.synced()
	w.stop()
	w.start()
	commits(func() { w.write(10) })
	w.synced()
	if got := w.relayed(len(want)); !slices.Equal(got, want) {
		t.Errorf("after a restart: relayed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range w.warned.take() {
		if !afterRestart(line) {
			t.Errorf("after a restart: warning of the relay: %s", line)
		}
	}

	// A backup from before the last twenty commits: the relay has newer commits than the
	// hold, receives a #sync, and continues.
	lost := w.repo.Head().Rev
	w.stop()
	w.restore()
	w.start()
	if rev := w.repo.Head().Rev; rev <= lost {
		t.Fatalf("restored hold at %s, before at %s", rev, lost)
	}
	w.subscribed()
	w.synced()
	warned := strings.Join(w.warned.take(), "\n")
	if strings.Contains(warned, "miss-matching prevData") || strings.Contains(warned, "future cursor") {
		t.Errorf("after a restore: warning of the relay: %s", warned)
	}
	w.have = nil // some of these are lost
	w.write(20)
	w.synced()
	w.noWarnings()
}

// logged returns the hold's events after a sequence number, in the format of relayed.
func (w *world) logged(after uint64) (lines []string) {
	w.Helper()
	for {
		page, err := w.repo.Events(after, 100)
		if err != nil {
			w.Fatal(err)
		}
		if len(page) == 0 {
			return lines
		}
		for _, e := range page {
			lines = append(lines, line(w.T, e))
			after = e.Seq
		}
	}
}
