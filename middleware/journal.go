package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/inspect"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// streams are the streams of a journal by their names.
var streams = map[string]journal.Stream{journal.Pushes.String(): journal.Pushes, journal.Pulls.String(): journal.Pulls}

func (r *runtime) openJournal() error {
	j, err := journal.Open(journal.Config{
		Dir:         r.options.JournalDir(),
		SegmentSize: int64(r.options.Journal.Segment),
		Limit:       int64(r.options.Journal.Limit),
		Wait:        r.options.Journal.Wait,
		Dropped:     r.dead.Dropped,
		Logger:      r.log,
	})
	if err != nil {
		return err
	}
	r.onClose(j.Close)
	r.journal = j
	return nil
}

// lastEvent returns the sequence number of a stream's last event; 0 for an unknown
// stream.
func (r *runtime) lastEvent(stream uint8) uint64 {
	switch s := journal.Stream(stream); s {
	case journal.Pushes, journal.Pulls:
		return r.journal.Status(s).Last
	}
	return 0
}

// inspect describes the journal of a running process.
func (r *runtime) inspect(events int) (*inspect.Report, error) {
	var positions []inspect.Position
	for _, p := range r.notifier.Positions() {
		positions = append(positions, inspect.Position{Sink: p.Sink, Stream: streams[p.Stream], Done: p.Done, Paused: p.Paused})
	}
	return inspect.New(r.journal, r.options.JournalDir(), positions, events)
}

// InspectJournal describes the journal of a stopped registry, with up to events pending events
// of each sink. It changes nothing on disk.
func InspectJournal(o *config.Options, events int) (report *inspect.Report, err error) {
	if _, err := os.Stat(o.JournalDir()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no journal in %s; the first start of the registry creates it", o.Data)
	}
	unlock, err := datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return nil, err
	}
	if err == nil { // otherwise the folder is read-only, and no process can have it open
		defer func() { err = errors.Join(err, unlock()) }()
	}
	j, err := journal.OpenReadOnly(journal.Config{Dir: o.JournalDir(), Limit: int64(o.Journal.Limit)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	db, err := state.Open(state.Config{Dir: o.StateDir(), ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	paused, err := runner.ReadPauses(state.OnPebble(db))
	if err != nil {
		return nil, err
	}
	var positions []inspect.Position
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		cursors := j.Cursors(s)
		for _, name := range slices.Sorted(maps.Keys(cursors)) {
			p := inspect.Position{Sink: name, Stream: s, Done: cursors[name], Paused: paused[name].Since}
			if name == sink.Counters { // its own position is newer
				counted, err := counter.ReadLatest(db, uint8(s))
				if err != nil {
					return nil, err
				}
				p.Done = max(p.Done, counted)
			}
			positions = append(positions, p)
		}
	}
	return inspect.New(j, o.JournalDir(), positions, events)
}

// drainPoll is how often Drain looks what is pending.
const drainPoll = 200 * time.Millisecond

// Drain lets the sinks of a stopped registry process the events in its journal, without serving
// anything, and returns when nothing is pending. It calls visit with the number of pending
// events now and then. It returns an error when ctx ends, and when a sink with pending events
// is paused for longer than ctx allows. The sinks log to log.
func Drain(ctx context.Context, host *configuration.Configuration, log io.Writer, visit func(pending uint64)) (err error) {
	r, err := openDrain(host, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(context.WithoutCancel(ctx))) }()
	for {
		pending := r.pending()
		visit(pending)
		if pending == 0 {
			return nil
		}
		if err := r.drainBlocked(ctx); err != nil {
			return err
		}
		sink.Pause(ctx, drainPoll)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %s", ctx.Err(), r.backlog())
		}
	}
}

// openDrain opens what the sinks need, and starts them.
func openDrain(host *configuration.Configuration, log io.Writer) (*runtime, error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return nil, err
	}
	if !found || !options.Enabled {
		return nil, fmt.Errorf("there is no enabled entry %q", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(log, host.Log), metrics: prometheus.NewRegistry(), events: sink.NewMetrics()}
	for _, open := range []func() error{
		r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, r.openHandles, r.openAccount, r.openRemote, r.openAppView, r.openNotifier, r.run, r.openAdmin,
	} {
		if err := open(); err != nil {
			return nil, errors.Join(err, r.close(context.Background()))
		}
	}
	return r, nil
}

// pending is the number of events that are pending at the slowest sink, or that interrupted
// pushes and deletes may still become.
func (r *runtime) pending() (most uint64) {
	for _, p := range r.notifier.Positions() {
		most = max(most, p.Pending())
	}
	return most + uint64(len(r.journal.Unresolved()))
}

// drainBlocked returns an error if a sink with pending events is paused until after the end
// of ctx.
func (r *runtime) drainBlocked(ctx context.Context) error {
	for _, p := range r.notifier.Positions() {
		if p.Pending() > 0 && !p.Paused.IsZero() {
			return fmt.Errorf("the sink %s is paused by operator since %s, with %s; `tidings sinks resume` resumes it while the registry runs",
				p.Sink, p.Paused.UTC().Format(time.RFC3339), pendingEvents(p.Pending()))
		}
	}
	end, limited := ctx.Deadline()
	for _, s := range r.notifier.Health() {
		waits := !s.Until.IsZero() && (!limited || s.Until.Before(end))
		if s.Depth > 0 && s.Paused() && !waits {
			return fmt.Errorf("the sink %s is paused with %s: %s", s.Sink, pendingEvents(s.Depth), s.Reason)
		}
	}
	return nil
}

func pendingEvents(n uint64) string {
	if n == 1 {
		return "1 pending event"
	}
	return fmt.Sprintf("%d pending events", n)
}

// backlog says what is pending.
func (r *runtime) backlog() string {
	var parts []string
	for _, p := range r.notifier.Positions() {
		if p.Pending() > 0 {
			parts = append(parts, fmt.Sprintf("%s at %s (%s)", pendingEvents(p.Pending()), p.Sink, p.Stream))
		}
	}
	if n := len(r.journal.Unresolved()); n > 0 {
		parts = append(parts, fmt.Sprintf("%d interrupted pushes or deletes", n))
	}
	return strings.Join(parts, ", ")
}
