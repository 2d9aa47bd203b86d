package middleware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/journal"
	reports "github.com/tidings-dev/tidings/notifier/remote"
)

const didPath = wellKnown + "did.json"

// openRemote creates the client of the hold that pushes are reported to.
func (r *runtime) openRemote() error {
	if r.options.Remote == nil {
		return nil
	}
	tokens, err := r.remoteTokens()
	if err != nil {
		return err
	}
	metrics := remote.NewMetrics()
	r.remote, err = remote.New(remote.Config{
		Hold: r.options.Remote.Hold, Tokens: tokens, PLC: r.options.Remote.Directory(),
		UserAgent: "tidings/" + ownVersion(), Now: clock.Now, Logger: r.log, Metrics: metrics,
	})
	if err != nil {
		return fmt.Errorf("options.remote: %w", err)
	}
	r.register(metrics.Collectors()...)
	return nil
}

// remoteTokens opens the sender of the calls, and sets r.account to its DID.
func (r *runtime) remoteTokens() (remote.Tokens, error) {
	if r.options.Remote.Account != nil {
		account, err := r.resolvedAccount("options.remote.account", r.options.RemotePDS())
		if err != nil {
			return nil, err
		}
		r.account = account.DID()
		return remote.OfAccount(account), nil
	}
	key, err := r.remoteKey()
	if err != nil {
		return nil, err
	}
	if r.account, err = identity.DIDWeb(r.options.Remote.Hostname); err != nil {
		return nil, err
	}
	document, err := remoteDocument(r.options.Remote.Hostname, key, r.log)
	if err != nil {
		return nil, err
	}
	r.mounts = append(r.mounts, mount{didPath, document})
	return remote.Signed(r.account, key, clock.Now), nil
}

// remoteKey loads the key of remote.hostname. The first start creates it. Later a missing
// key is an error, since it may be on a disk that is not mounted.
func (r *runtime) remoteKey() (atcrypto.PrivateKeyExportable, error) {
	file := r.options.RemoteKeyFile()
	key, err := identity.LoadKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, used := r.journal.Cursors(journal.Pushes)[reports.Name]; used {
		return nil, fmt.Errorf("%s is missing: restore it from a backup, or create a new key with `tidings remote init`", file)
	}
	if key, err = identity.CreateKey(file); err == nil {
		r.log.Info("the key of remote.hostname was created", "file", file)
	}
	return key, err
}

// remoteDocument returns a handler that serves the DID document of a registry that
// reports to another hold. It has a key and no service: there is no repo.
func remoteDocument(hostname string, key atcrypto.PrivateKey, log *slog.Logger) (http.Handler, error) {
	document, err := identity.Sender(hostname, key)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if xrpc.AllowGET(w, r) {
			xrpc.WriteJSON(w, http.StatusOK, document, log)
		}
	}), nil
}

// remoteDocument serves the DID document while the data folder cannot be opened, which
// needs only the key.
func (f *fallback) remoteDocument(o *opener) http.Handler {
	key, err := identity.LoadKey(o.options.RemoteKeyFile())
	if err != nil {
		return http.HandlerFunc(f.unavailable)
	}
	document, err := remoteDocument(o.options.Remote.Hostname, key, o.log)
	if err != nil {
		return http.HandlerFunc(f.unavailable)
	}
	return document
}

// resolvedAccount opens an account on another PDS. The first start needs the network, since
// events contain the DID of the account; later ones do not.
func (r *runtime) resolvedAccount(option string, cfg pds.Config) (*pds.Account, error) {
	cfg.UserAgent = "tidings/" + ownVersion()
	cfg.Now, cfg.Logger = clock.Now, r.log
	account, err := pds.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	resolve := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		return account.Resolve(ctx)
	}
	if account.DID() == "" {
		if err := resolve(context.Background()); err != nil {
			return nil, fmt.Errorf("%s: the first start has to find the account, and could not: %w", option, err)
		}
	}
	r.background(func(ctx context.Context) error {
		if err := resolve(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("the account cannot be reached; its events stay pending", "account", account.DID(), "error", err)
		}
		return nil
	})
	return account, nil
}

// RemoteHealth is the state of the hold of remote.
type RemoteHealth struct {
	Status   string    `json:"status"` // "ok" or "paused"
	Hold     string    `json:"hold"`   // DID
	DID      string    `json:"did"`    // of the sender of the calls
	Endpoint string    `json:"endpoint,omitempty"`
	Keys     string    `json:"keys"`                // "honored", "ignored" or "unknown": whether the hold honors Idempotency-Keys
	Reason   string    `json:"reason,omitempty"`    // why it is paused
	Until    time.Time `json:"until,omitzero"`      // no calls before
	Answered time.Time `json:"answered,omitzero"`   // the last call that it has applied since the start; only with the token
	Error    string    `json:"lastError,omitempty"` // that paused it; only with the token
}

// addRemote adds the state of the hold of remote. A hold that cannot be called degrades the
// health; one that asked to wait does not.
func (h *Health) addRemote(s remote.Status, did string, all bool) {
	h.Remote = &RemoteHealth{Status: statusOK, Hold: s.Hold, DID: did, Endpoint: s.Endpoint, Keys: s.Keys.String()}
	for _, sink := range h.Sinks {
		if sink.Sink != reports.Name || !sink.Paused() {
			continue
		}
		h.Remote.Status, h.Remote.Reason, h.Remote.Until = "paused", sink.Reason, s.Until
		if sink.Suspended() {
			h.Status = statusDegraded
		}
	}
	if !all {
		return
	}
	if h.Remote.Answered = s.Answered.UTC(); s.Error != nil {
		h.Remote.Error = s.Error.Error()
	}
}

// remoteConfig returns the part of the notifier's configuration; nil without remote.
func (r *runtime) remoteConfig() *notifier.RemoteConfig {
	if r.remote == nil {
		return nil
	}
	return &notifier.RemoteConfig{Hold: r.remote, Private: r.options.Remote.Private == config.PrivateSend, Pulls: r.options.Remote.Pulls}
}
