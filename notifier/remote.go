package notifier

import (
	"context"
	"errors"
	"time"

	client "github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// RemoteConfig is another hold that pushes are reported to.
type RemoteConfig struct {
	Hold     remote.Hold
	Private  bool          // also report pushes of repositories that are not public, as private
	Pulls    bool          // report pulls as well
	Interval time.Duration // shortest time between two calls for pulls; 0: remote.DefaultInterval
}

// addRemote adds the sink that reports pushes, and the reader that reports pulls.
func (n *Notifier) addRemote(cfg *RemoteConfig) {
	n.remote = remote.New(sink.Deps{
		State: n.state, Storage: n.storage, Public: n.public, GiveUp: n.giveUpFor(remote.Name), Metrics: n.metrics, Log: n.log,
	}, cfg.Hold, cfg.Private, n.now)
	n.sinks = append(n.sinks, n.remote)
	if cfg.Pulls {
		n.pulls = remote.NewPulls(cfg.Hold, n.public, cfg.Interval, n.now)
	}
}

// registerRemote registers the cursors of the reports. What was recorded before the first
// start with them is not reported. It is called when the journal has its last number.
func (n *Notifier) registerRemote() error {
	if n.remote != nil {
		if err := n.journal.RegisterAtEnd(journal.Pushes, remote.Name); err != nil {
			return err
		}
	}
	if n.pulls != nil {
		return n.journal.RegisterAtEnd(journal.Pulls, remote.Name)
	}
	return n.journal.Forget(journal.Pulls, remote.Name)
}

// publishes reports whether pushes of a repository are published or reported.
func (n *Notifier) publishes(repository string) bool {
	return n.account != nil && n.public(repository) || n.remote != nil && n.remote.Reports(repository)
}

// pullsReported is the sequence number of the last pull that was reported or passed over.
func (n *Notifier) pullsReported() uint64 {
	return max(n.journal.Cursor(journal.Pulls, remote.Name), n.lastPull.Load()) // the cursor moves lazily
}

// remotePulls is the box with the letters of the pulls that were not reported.
var remotePulls = deadletters.Box{Sink: remote.Name, Stream: journal.Pulls}

// Limits of the pulls that are read at once.
const (
	pullEvents = 500
	pullBytes  = 1 << 20
)

// runRemotePulls reports pulls until ctx ends.
func (n *Notifier) runRemotePulls(ctx context.Context) error {
	retry := n.runner.NewBackoff(remote.Name)
	n.runner.Run(ctx, runner.ID{Sink: remote.Name, Stream: journal.Pulls}, runner.Job{
		Step: func(turn context.Context) error { return n.stepRemotePulls(turn, retry) },
	})
	return nil
}

// stepRemotePulls reports the next pulls.
func (n *Notifier) stepRemotePulls(ctx context.Context, retry *runner.Backoff) error {
	if err := n.space(); err != nil {
		return err
	}
	after, last := n.pullsReported(), n.journal.Status(journal.Pulls).Last
	entries, err := n.journal.Read(journal.Pulls, after, pullEvents, pullBytes)
	if err != nil {
		return err
	}
	if len(entries) == 0 && last > after {
		// The journal was restored from an older copy and skips these numbers.
		return n.journal.SetCursor(journal.Pulls, remote.Name, last)
	}
	if len(entries) == 0 {
		n.journal.Wait(ctx, journal.Pulls, after)
		return nil
	}
	for _, entry := range entries {
		if err := n.reportPull(ctx, retry, entry); err != nil {
			return err
		}
		n.lastPull.Store(entry.Seq)
		if err := n.journal.SetCursorLazily(journal.Pulls, remote.Name, entry.Seq); err != nil {
			return err
		}
	}
	return nil
}

// reportPull reports one pull, unless it is one that is not reported. One that can't be
// read or is refused is given up.
func (n *Notifier) reportPull(ctx context.Context, retry *runner.Backoff, entry journal.Entry) error {
	e, err := n.readFor(remotePulls, entry)
	if err != nil && !undecodable(err) {
		return err
	}
	if err != nil {
		return n.giveUpPull(entry, err)
	}
	call, ok := n.pulls.Call(n.journal.ID(), e)
	if !ok {
		return nil
	}
	repeatable, err := n.pulls.Repeatable(ctx, call)
	if err != nil {
		return err
	}
	if err := n.waitForPushes(ctx); err != nil {
		return err
	}
	if repeatable {
		return n.sendPull(ctx, retry, entry, call)
	}
	if err := n.journal.SetCursor(journal.Pulls, remote.Name, entry.Seq); err != nil {
		return err
	}
	if err := n.sendPull(ctx, retry, entry, call); err != nil {
		return n.giveUpPull(entry, errors.New("the process ended or the sink was paused before the hold took the call"))
	}
	return nil
}

// sendPull makes the call of a pull until its outcome is final, or ctx ends. A push that is
// made between two attempts is reported first.
func (n *Notifier) sendPull(ctx context.Context, retry *runner.Backoff, entry journal.Entry, call client.Call) error {
	work, cancel := finishing(ctx)
	defer cancel()
	for n.waitForPushes(ctx) == nil && ctx.Err() == nil {
		err := n.pulls.Report(work, call)
		var refused *client.RefusedError
		switch {
		case err == nil:
			retry.Reset()
			sink.Pause(ctx, n.pulls.Interval)
			return nil
		case errors.As(err, &refused), errors.Is(err, remote.ErrUncounted):
			return n.giveUpPull(entry, err)
		}
		retry.Sleep(ctx, err)
	}
	return ctx.Err()
}

func (n *Notifier) giveUpPull(entry journal.Entry, reason error) error {
	return n.giveUp(remotePulls, entry.Seq, entry.Payload, reason)
}

// pushesPoll is how often waitForPushes looks whether a push is pending.
const pushesPoll = 100 * time.Millisecond

// waitForPushes returns when no push is pending at the sink, or when ctx ends.
func (n *Notifier) waitForPushes(ctx context.Context) error {
	for n.journal.Cursor(journal.Pushes, remote.Name) < n.journal.Status(journal.Pushes).Last {
		sink.Pause(ctx, pushesPoll)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
