package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// Config describes a hold. Hold and Tokens are required.
type Config struct {
	Hold   string // its DID, a did:web or did:plc
	Tokens Tokens // of the calls
	PLC    string // directory of did:plc, https://host; "": the public one

	UserAgent string           // "": "tidings"
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: silent
	Metrics   *Metrics         // nil: none
}

// A Hold is a hold that somebody else runs. Its methods may be called at the same time.
//
// An error of a method is a *pds.Error, whose Outcome says what to do:
//
//   - pds.Refused and pds.TooLarge: a *RefusedError, which wraps the *pds.Error. The call
//     was not applied, and the same call never will be. Other calls may be.
//   - pds.Limited and pds.Suspended: the call was not applied. The hold takes no calls
//     before Until: it asked to wait, cannot be reached, or does not accept the caller.
//   - pds.Unknown: the call may have been applied; see Lost. Written says whether it may
//     be repeated, not before Until.
//
// Until is always set, and until then calls fail at once, with what is known.
type Hold struct {
	cfg      Config
	log      *slog.Logger
	source   *identity.Source
	settleAt time.Time // before it a call of an earlier process may still be processed

	mu       sync.Mutex
	at       *address // nil: not resolved yet
	resolved time.Time
	audience string // that the hold has accepted; "": none yet
	keys     Keys
	failures int       // in a row
	until    time.Time // no call before
	last     *pds.Error
	lastAt   time.Time
	answered time.Time
	suspect  bool // an answer was lost, and none was received since
}

// A Call reports a push or a pull. A hold that does not know Visibility, which is newer
// than the rest of the schema, publishes a private push.
type Call struct {
	Input lexicon.NotifyManifestInput
	Key   string    // Idempotency-Key: 1 to 128 printable ASCII characters, the same whenever the call is repeated
	Since time.Time // when the call was first sent, or a little before; its records are not older
}

// New returns the hold of a configuration. It makes no call: the first method that needs
// the network resolves the DID.
func New(cfg Config) (*Hold, error) {
	if cfg.Tokens == nil {
		return nil, errors.New("remote hold: tokens are required")
	}
	if err := identity.CheckAccount(cfg.Hold); err != nil {
		return nil, fmt.Errorf("remote hold: %w", err)
	}
	source, err := identity.NewSource(cfg.Hold, cfg.PLC)
	if err != nil {
		return nil, fmt.Errorf("remote hold %q: %w", cfg.Hold, err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "tidings"
	}
	return &Hold{cfg: cfg, log: cfg.Logger.With("component", "remote", "hold", cfg.Hold), source: source, settleAt: cfg.Now().Add(settle)}, nil
}

// Notify makes the call, once. An output without Success is no error: the hold has
// answered, and a repeated call would have the same answer.
func (h *Hold) Notify(ctx context.Context, c Call) (lexicon.NotifyManifestOutput, error) {
	var out lexicon.NotifyManifestOutput
	body, err := encode(c)
	if err != nil {
		return out, err // of the call, not of the hold
	}
	if err := h.ready(ctx); err != nil {
		return out, err
	}
	start := h.cfg.Now()
	out, err = h.notify(ctx, body, c.Key)
	h.cfg.Metrics.called(err, h.cfg.Now().Sub(start))
	return out, h.note(err)
}
