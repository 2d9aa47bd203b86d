package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier"
)

// openAdmin serves the admin API. Without it the registry works as usual, so a socket that
// cannot be created is only logged.
func (r *runtime) openAdmin() error {
	rates := admin.NewRates(r.notifier.Positions, time.Now)
	started := clock.Now()
	cfg := admin.Config{
		Status:  func(ctx context.Context) admin.Status { return r.adminStatus(ctx, rates, started) },
		Letters: r.dead,
		Retry:   r.notifier.RetryLetter,
		Sinks:   r.notifier,
		Inspect: r.inspect,
		Uses:    r.uses,
		Backup:  r.openBackups(),
		Log:     r.log,

		Backfill: r.backfill,
		Records:  r.records,
		Repair:   r.notifier.Repair,
	}
	if posts := r.notifier.Announcements(); posts != nil {
		cfg.Announcements = posts
	}
	server, err := admin.Listen(r.options.Data, admin.New(cfg), r.log)
	if err != nil {
		r.log.Warn("`tidings status` and other commands for a running registry do not work", "error", err)
		return nil
	}
	r.background(rates.Run)
	r.closers = append(r.closers, server.Close)
	return nil
}

// openHoldAdmin serves the status and the backups of a hold that is served without a registry and takes no
// notifications.
func (r *runtime) openHoldAdmin() error {
	started := clock.Now()
	server, err := admin.Listen(r.options.Data, admin.New(admin.Config{
		Status: func(context.Context) admin.Status { return r.holdStatus(started) },
		Backup: r.openBackups(),
		Log:    r.log,
	}), r.log)
	if err != nil {
		r.log.Warn("`tidings status` and `tidings backup` do not work", "error", err)
		return nil
	}
	r.closers = append(r.closers, server.Close)
	return nil
}

// holdStatus is the status of such a hold.
func (r *runtime) holdStatus(started time.Time) admin.Status {
	h := Health{Status: statusOK, Sinks: []notifier.SinkHealth{}, Hold: r.holdHealth()}
	h.addRelays(r.network.Relays(), true)
	s := admin.Status{
		Status: admin.OK, PID: os.Getpid(), Version: ownVersion(), Started: started, Data: r.options.Data, Sinks: []admin.Sink{}, Disks: []admin.Disk{},
	}
	if free, err := store.FreeSpace(r.options.HoldDir()); err == nil {
		s.Disks = append(s.Disks, admin.Disk{Path: r.options.HoldDir(), Free: free, Reserve: uint64(r.options.Hold.Reserve)})
	}
	switch {
	case h.Hold.Status == "failing":
		s.Status = admin.Broken
	case h.Status != statusOK:
		s.Status = admin.Degraded
	}
	s.Health, _ = json.Marshal(h) // it has no members that can't be encoded
	return s
}

// adminStatus is the health with the numbers of each sink and the free space.
func (r *runtime) adminStatus(ctx context.Context, rates *admin.Rates, started time.Time) admin.Status {
	health := r.report(ctx, true)
	s := admin.Status{
		Status: admin.OK, Reasons: health.Reasons, PID: os.Getpid(), Version: ownVersion(), Started: started,
		Data: r.options.Data, Parked: r.notifier.ParkedPushes(), Disks: r.disks(),
	}
	for i, at := range r.notifier.Positions() { // of the same sinks as health has
		sink := admin.Sink{SinkHealth: health.Sinks[i], Position: at.Done, Last: at.Last}
		sink.Rate, sink.Ends = rates.Of(at.Stream, at.Sink)
		s.Sinks = append(s.Sinks, sink)
	}
	s.Reasons = append(s.Reasons, sinkReasons(s.Sinks)...)
	for _, sink := range s.Sinks {
		if sink.ByOperator && r.journal.HalfFull(streams[sink.Stream]) {
			s.Reasons = append(s.Reasons, "the journal of "+sink.Stream+" is more than half full: at its limit the oldest events of the paused sink "+sink.SinkHealth.Sink+" become dead letters")
		}
	}
	if health.Status != statusOK || len(s.Reasons) > 0 {
		s.Status = admin.Degraded
	}
	if health.Hold != nil && health.Hold.Status == "failing" || errors.Is(r.state.Health(), store.ErrStopped) || r.journalDiskFull() {
		s.Status = admin.Broken
	}
	s.Health, _ = json.Marshal(health) // it has no members that can't be encoded
	return s
}

// sinkReasons are the reasons why sinks are not ok.
func sinkReasons(sinks []admin.Sink) (reasons []string) {
	for _, s := range sinks {
		name := "sink " + s.Sink + " (" + s.Stream + ")"
		switch {
		case s.ByOperator:
			reasons = append(reasons, name+" is "+s.Reason)
		case s.Paused():
			reasons = append(reasons, name+" is paused: "+s.Reason)
		case s.State != statusOK:
			reasons = append(reasons, name+" is "+s.State)
		}
		if s.Failed > 0 {
			reasons = append(reasons, name+" has given up events; see `tidings dead list`")
		}
	}
	return reasons
}

// disks are the free space for the journal and the state.
func (r *runtime) disks() []admin.Disk {
	var disks []admin.Disk
	if free, err := store.FreeSpace(r.options.JournalDir()); err == nil {
		disks = append(disks, admin.Disk{Path: r.options.JournalDir(), Free: free, Reserve: journalMinFree})
	}
	if free, err := store.FreeSpace(r.options.StateDir()); err == nil {
		disks = append(disks, admin.Disk{Path: r.options.StateDir(), Free: free, Reserve: uint64(r.options.Reserve)})
	}
	return disks
}

// journalDiskFull reports whether the journal's next write may fail.
func (r *runtime) journalDiskFull() bool {
	free, err := store.FreeSpace(r.options.JournalDir())
	return err == nil && free < journalMinFree
}

// serveAdmin serves the status of a fallback, if the socket can be created. end closes it;
// the parts that are opened later have a socket of their own.
func (f *fallback) serveAdmin(o *opener) (end func(context.Context) error) {
	none := func(context.Context) error { return nil }
	unlock, err := datafolder.Lock(o.options.LockFile())
	if err != nil {
		return none
	}
	defer func() { _ = unlock() }()
	started := clock.Now()
	server, err := admin.Listen(o.options.Data, admin.New(admin.Config{
		Status: func(context.Context) admin.Status {
			return admin.Status{
				Status: admin.Broken, Reasons: f.report().Reasons, PID: os.Getpid(), Version: ownVersion(), Started: started,
				Data: o.options.Data, Sinks: []admin.Sink{}, Disks: []admin.Disk{},
			}
		},
		Log: o.log,
	}), o.log)
	if err != nil {
		o.log.Warn("`tidings status` does not work until the data folder is open", "error", err)
		return none
	}
	return server.Close
}
