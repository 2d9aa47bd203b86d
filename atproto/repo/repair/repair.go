package repair

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// Config configures Repair.
type Config struct {
	repo.Config
	Old []atcrypto.PublicKey // old keys of the account, which have signed earlier events

	// WithoutLost drops records that can't be recovered, and continues without
	// them.
	WithoutLost bool

	// ClockIsRight allows the repair of a rev that is ahead even if all kept events
	// are ahead, too, which looks as if the clock were behind.
	ClockIsRight bool

	Found func(Problem) // called with each problem; may be nil
	Read  Read          // as for Verify
}

// Result is the result of Repair.
type Result struct {
	Before  Report    // as Verify reports it; nothing was done if it has no problems
	Done    []string  // one line each
	Head    repo.Head // after the repair
	Backup  string    // folder of the damaged repo; empty if it was repaired in place
	Dropped []string  // paths of records that were dropped, the first thousand
}

// LostError: records are damaged or missing and the event log does not have them,
// or it is unknown which records there were. Nothing was changed.
type LostError struct {
	Paths  []string // the first thousand
	Count  int
	Reason string
}

func (e *LostError) Error() string {
	var text strings.Builder
	text.WriteString(e.Reason)
	for i, path := range e.Paths {
		if i == 10 {
			fmt.Fprintf(&text, " … %d in total", e.Count)
			break
		}
		text.WriteString("\n  " + path)
	}
	return text.String()
}

var (
	errClockBehind = errors.New("everything in the repo is dated ahead of the system clock: correct the clock or, if it is right, run `tidings hold repair --clock-is-right`")
	errOtherKey    = errors.New("nothing in it is signed by this key: configure the key that signed it")
)

// Repair verifies the repo and, if there are problems, derives damaged parts: the
// tree, the index and the references to blobs from the records, and lost records
// and the head from the event log. The signed head decides which records belong to
// the repo. It is kept if possible; otherwise, and if its rev is ahead of the clock,
// it is replaced by a fresh commit. In both cases a #sync event informs subscribers.
//
// A damaged repo is not changed: its readable contents are copied to a new one,
// which then replaces it (see rebuild). This takes the same disk space again.
func Repair(ctx context.Context, cfg Config) (Result, error) {
	full, err := cfg.Config.WithDefaults()
	if err != nil {
		return Result{}, fmt.Errorf("repair repo: %w", err)
	}
	cfg.Config = full
	done, err := repair(ctx, cfg)
	if unreadable(err) {
		return done, fmt.Errorf("repair repo in %[1]s: a file of its database can't be read, so nothing can be derived from it: %[2]s; "+
			"restore a backup (`tidings restore`), or move %[1]s away, run `tidings hold init`, and restore an export (`tidings hold import`)", cfg.Dir, firstLine(err))
	}
	if err != nil {
		return done, fmt.Errorf("repair repo in %s: %w", cfg.Dir, err)
	}
	return done, nil
}

func repair(ctx context.Context, cfg Config) (Result, error) {
	s, err := layout.OpenDamaged(cfg.Dir, cfg.Layout())
	if err != nil {
		return Result{}, err
	}
	damaged := false
	v, err := newVerifier(cfg.Config, s, cfg.Old, func(p Problem) {
		damaged = damaged || p.Part != PartClock && p.Part != PartHead
		if cfg.Found != nil {
			cfg.Found(p)
		}
	}, cfg.Read)
	if err != nil {
		s.Close()
		return Result{}, err
	}
	err = v.run(ctx)
	done := Result{Before: v.counts, Head: v.counts.Head}
	if err != nil || v.counts.Problems == 0 {
		s.Close()
		return done, err
	}
	if !damaged && v.head.Rev != "" {
		if err := s.Close(); err != nil {
			return done, err
		}
		return done, repairHead(cfg, v, &done)
	}
	r := &rescue{cfg: cfg, from: s, verifier: v, done: &done}
	return done, r.run(ctx)
}

// repairHead makes a fresh commit of the same tree, with a rev that is not ahead
// and signed by the current key.
func repairHead(cfg Config, v *verifier, done *Result) (err error) {
	if err := checkClock(cfg, v); err != nil {
		return err
	}
	s, err := layout.Open(cfg.Dir, cfg.Layout())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	head, err := repo.Restate(cfg.Config, s, s.NewBatch(), repo.Restatement{State: v.head, Data: v.head.Data, Identity: v.oldKey})
	if err != nil {
		return err
	}
	if v.oldKey {
		done.Done = append(done.Done, "the key rotation is completed")
	}
	done.Head = head
	done.Done = append(done.Done, fmt.Sprintf("a fresh commit, %s, replaces %s", head.Rev, v.head.Rev))
	return nil
}

// checkClock returns an error if the clock is more likely wrong than the head:
// then a new rev would be lower than some that the network has accepted.
func checkClock(cfg Config, v *verifier) error {
	if cfg.ClockIsRight || v.first == "" || v.head.Ahead(cfg.Now()) <= layout.MaxAhead {
		return nil
	}
	oldest := syntax.TID(v.first).Time()
	if dropped := time.UnixMicro(int64(v.dropped)); v.dropped > 0 && dropped.Before(oldest) {
		oldest = dropped
	}
	if oldest.Sub(cfg.Now()) > layout.MaxAhead {
		return fmt.Errorf("%w (it is %s by the clock, and the oldest event is of %s)", errClockBehind,
			cfg.Now().UTC().Format(time.RFC3339), oldest.UTC().Format(time.RFC3339))
	}
	return nil
}
