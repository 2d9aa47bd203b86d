package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/notifier/state"
)

// How an operator pauses a sink
//
// Pause writes a row, durably, and wakes the readers of the sink. A reader ends its step and
// takes no other. A batch that is in the outbox then may have been applied already, so it is
// finished first, if need be when the account can be written again; only after that the
// reader is idle. So a start, which finishes such batches before anything else, writes no
// more than a pause does, and nothing of a batch is sent twice or left out.
//
//	state.Pauses <sink>   Pause
//
// The row is there until the operator resumes the sink, also after a restart.

var (
	// ErrBusy is returned if a reader does not end its step in time.
	ErrBusy = errors.New("the sink is still processing events; try again")
	// ErrNotPaused is returned for a sink that no operator has paused.
	ErrNotPaused = errors.New("the sink is not paused by an operator")
)

// A Pause is the pause of a sink by an operator. This is its form in the state.
type Pause struct {
	Since time.Time `json:"since"`
	// Finishing: a batch may be on its way, which is finished before the sink is idle.
	Finishing bool `json:"-"`
}

func pauseKey(sink string) []byte { return []byte(state.Pauses + sink) }

// ReadPauses reads the pauses of operators, by sink.
func ReadPauses(db state.Store) (map[string]Pause, error) {
	paused := map[string]Pause{}
	err := db.Scan(state.Prefix(state.Pauses), func(key, val []byte) error {
		var p Pause
		if err := json.Unmarshal(val, &p); err != nil {
			return err
		}
		paused[string(key[len(state.Pauses):])] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read which sinks are paused: %w", err)
	}
	return paused, nil
}

// Paused returns the pause of a sink by an operator; false if there is none.
func (r *Runner) Paused(sink string) (Pause, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, paused := r.paused[sink]
	p.Finishing = true // until the readers run
	for id, rd := range r.readers {
		if id.Sink != sink {
			continue
		}
		if p.Finishing = !rd.idle; p.Finishing {
			break
		}
	}
	return p, paused
}

// Pause pauses a sink, durably, and waits until its readers are idle, at most until ctx
// ends. A sink that is paused already stays so.
func (r *Runner) Pause(ctx context.Context, sink string) error {
	if err := r.pause(sink); err != nil {
		return err
	}
	r.interrupt(sink)
	for {
		changed := r.changed.Wait()
		if p, paused := r.Paused(sink); !paused || !p.Finishing {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil // it becomes idle later
		}
	}
}

func (r *Runner) pause(sink string) error {
	r.pausing.Lock()
	defer r.pausing.Unlock()
	if _, paused := r.Paused(sink); paused {
		return nil
	}
	p := Pause{Since: r.Now().UTC().Truncate(time.Second)}
	val, err := json.Marshal(p)
	if err == nil {
		err = state.Set(r.State, pauseKey(sink), val, state.Sync)
	}
	if err != nil {
		return fmt.Errorf("pause the sink %s: %w", sink, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused[sink] = p
	r.Log.Warn("an operator has paused a sink; its events stay pending", "sink", sink)
	return nil
}

// Resume ends the pause of a sink, durably.
func (r *Runner) Resume(sink string) error {
	r.pausing.Lock()
	defer r.pausing.Unlock()
	if _, paused := r.Paused(sink); !paused {
		return fmt.Errorf("%w: %s", ErrNotPaused, sink)
	}
	if err := state.Delete(r.State, pauseKey(sink), state.Sync); err != nil {
		return fmt.Errorf("resume the sink %s: %w", sink, err)
	}
	r.mu.Lock()
	delete(r.paused, sink)
	for id, rd := range r.readers {
		if id.Sink == sink {
			rd.idle = false
		}
	}
	r.mu.Unlock()
	r.Log.Warn("an operator has resumed a sink", "sink", sink)
	r.interrupt(sink)
	r.changed.Send()
	return nil
}

// interrupt ends the present turns of the readers of a sink.
func (r *Runner) interrupt(sink string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, rd := range r.readers {
		if id.Sink == sink {
			rd.want(0)
		}
	}
}

// isIdle reports whether a reader is idle because its sink is paused.
func (r *Runner) isIdle(rd *reader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return rd.idle
}

// setIdle notes that nothing of a reader is on its way, if its sink is paused.
func (r *Runner) setIdle(sink string, rd *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, rd.idle = r.paused[sink]
	r.changed.Send()
}
