package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2"
)

// RepairConfig says what Repair may do.
type RepairConfig struct {
	Config
	Old []atcrypto.PublicKey // earlier keys of the account, for what they signed

	// WithoutLost gives up records that are found nowhere, and lets the account
	// go on without them.
	WithoutLost bool

	// ClockIsRight lets a rev that is ahead be mended though all events that are
	// kept are ahead too, which looks as if the clock were behind.
	ClockIsRight bool

	Found func(Problem) // nil, or told what is wrong
}

// Repaired is what Repair did.
type Repaired struct {
	Before  Report   // as Verify found it; nothing was done if it has no problems
	Done    []string // a line each
	Head    Head     // now
	Aside   string   // where the damaged repository is kept; empty if it was mended in its place
	Dropped []string // paths of records that were given up, the first thousand
}

// LostError: records are damaged or gone and neither the tree nor the event
// log has them, or nothing tells what was there. Nothing was changed.
type LostError struct {
	Paths []string // the first thousand
	Count int
	Why   string
}

func (e *LostError) Error() string {
	var text strings.Builder
	text.WriteString(e.Why)
	for i, path := range e.Paths {
		if i == 10 {
			fmt.Fprintf(&text, " … %d in all", e.Count)
			break
		}
		text.WriteString("\n  " + path)
	}
	return text.String()
}

var (
	errClockBehind = errors.New("everything that is kept is dated ahead of this machine's clock, so the clock looks wrong: set it right, or, if it is, run `tidings hold repair --clock-is-right`")
	errOtherKey    = errors.New("nothing in it is signed by this key: give the key that belongs to it")
)

// Repair verifies the repository and, if something is wrong, mends what can be
// derived: the tree from the records, lost records from the event log, the
// index and the counts of blobs from the records, the head from the log. The
// signed head decides what belongs to the repository. If it can be kept, it is;
// else, and if its rev is ahead of the clock, there is a fresh commit. Either way
// a #sync event tells subscribers to look.
//
// A damaged repository is not changed: a new one is made beside it from what
// can be read, and takes its place in one step, so a crash leaves one or the
// other. That needs as much disk again. No other process may have it open.
func Repair(ctx context.Context, cfg RepairConfig) (Repaired, error) {
	full, err := cfg.Config.withDefaults()
	if err != nil {
		return Repaired{}, fmt.Errorf("repair repository: %w", err)
	}
	cfg.Config = full
	done, err := repair(ctx, cfg)
	if pebble.IsCorruptionError(err) {
		return done, fmt.Errorf("repair repository in %s: a file of its database can't be read at all, so there is nothing to derive the rest from: restore a backup (%s)", cfg.Dir, firstLine(err))
	}
	if err != nil {
		return done, fmt.Errorf("repair repository in %s: %w", cfg.Dir, err)
	}
	return done, nil
}

func repair(ctx context.Context, cfg RepairConfig) (Repaired, error) {
	s, err := openDamaged(cfg.Config)
	if err != nil {
		return Repaired{}, err
	}
	damaged := false
	v, err := newVerifier(cfg.Config, s, cfg.Old, func(p Problem) {
		damaged = damaged || p.Part != PartClock && p.Part != PartHead
		if cfg.Found != nil {
			cfg.Found(p)
		}
	})
	if err != nil {
		s.Close()
		return Repaired{}, err
	}
	err = v.run(ctx)
	done := Repaired{Before: v.report, Head: v.report.Head}
	if err != nil || v.report.Problems == 0 {
		s.Close()
		return done, err
	}
	if !damaged && v.head.Rev != "" {
		if err := s.Close(); err != nil {
			return done, err
		}
		return done, mendHead(cfg, v, &done)
	}
	r := &rescue{cfg: cfg, from: s, verifier: v, done: &done}
	return done, r.run(ctx)
}

// mendHead makes a fresh commit of the same tree: one that is not dated ahead,
// and is signed by the current key.
func mendHead(cfg RepairConfig, v *verifier, done *Repaired) (err error) {
	if err := clockIsBehind(cfg, v); err != nil {
		return err
	}
	s, err := openStore(cfg.Config, cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w, err := newWriter(cfg.Config, s, v.head)
	if err != nil {
		return err
	}
	b := s.NewBatch()
	if v.older {
		if err := w.addIdentity(b); err != nil {
			return err
		}
		done.Done = append(done.Done, "the change of keys is finished")
	}
	if err := w.restate(b, v.head.Data); err != nil {
		return err
	}
	if err := w.finish(b, v.head.Seq); err != nil {
		return err
	}
	done.Head = w.next.Head
	done.Done = append(done.Done, fmt.Sprintf("a fresh commit, %s, in place of %s", w.next.Rev, v.head.Rev))
	return nil
}

// clockIsBehind is an error if the clock is more likely wrong than the head:
// then a new rev would be lower than some that the network has accepted.
func clockIsBehind(cfg RepairConfig, v *verifier) error {
	if cfg.ClockIsRight || v.begin == "" || v.head.ahead(cfg.Now()) <= maxAhead {
		return nil
	}
	at := syntax.TID(v.begin).Time()
	if gone := time.UnixMicro(int64(v.gone)); v.gone > 0 && gone.Before(at) {
		at = gone
	}
	if at.Sub(cfg.Now()) > maxAhead {
		return fmt.Errorf("%w (it says %s, and what is oldest is of %s)", errClockBehind,
			cfg.Now().UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	return nil
}
