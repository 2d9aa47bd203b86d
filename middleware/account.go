package middleware

import (
	"context"
	"errors"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier/delivery"
)

// openRepo opens the account's repo.
func (r *runtime) openRepo() error {
	account, identity, err := hold.OpenRepo(hold.RepoConfig{
		Dir:      r.options.HoldDir(),
		KeyFile:  r.options.KeyFile(),
		Hostname: r.options.Hold.Hostname,
		MovedTo:  movedTo(r.options.Hold),
		Reserve:  uint64(r.options.Hold.Reserve),
		Now:      clock.Now,
		Logger:   r.log,
	})
	if err != nil {
		return err
	}
	r.onClose(account.Close)
	r.repo, r.writes, r.account, r.identity = account, delivery.OnEmbedded(account), identity.DID, identity
	return nil
}

// openNetwork creates the firehose of the repo. While it has subscribers, the
// notifier writes no faster than they read.
func (r *runtime) openNetwork() error {
	metrics := hold.NewMetrics()
	network, err := hold.NewNetwork(hold.NetworkConfig{
		Identity: r.identity, Repo: r.repo, Relays: r.options.Hold.Relays, Metrics: metrics, Now: clock.Now, Logger: r.log,
	})
	if err != nil {
		return err
	}
	r.register(metrics.Collectors()...)
	r.closers = append(r.closers, network.Shutdown)
	r.network, r.writes = network, delivery.OnEmbedded(network.Writer())
	return nil
}

// openAccount opens the repo that records and posts are written to. A hold that
// cannot be opened does not keep the registry from starting: pushes and pulls do not
// need it, and records and posts stay pending in the journal.
func (r *runtime) openAccount() error {
	switch {
	case r.options.Account != nil:
		return r.openPDS()
	case r.options.Hold == nil:
		return nil
	}
	err := r.openRepo()
	if err == nil {
		return r.openNetwork()
	}
	var reason *hold.BrokenError
	if !errors.As(err, &reason) {
		return err
	}
	if r.broken, err = hold.NewBroken(reason, r.log); err != nil {
		return err
	}
	r.account, r.writes = reason.DID, delivery.OnEmbedded(r.broken)
	if isUnwritable(markUnwritable(reason)) {
		r.log.Error("the hold cannot be opened; records and posts are pending until its disk can be written", "error", reason)
		r.deferred = newDeferredHold(r.broken)
		r.writes = r.deferred
		return nil
	}
	r.log.Error("the hold cannot be opened; records and posts are pending until it is repaired and the registry restarted", "error", reason)
	return nil
}

// openHold mounts the hold's server or, if the hold is broken, its replacement.
func (r *runtime) openHold() error {
	switch {
	case r.options.Hold == nil:
		return nil
	case r.deferred != nil:
		r.openDeferred()
		r.mountHold(r.deferred)
		return nil
	case r.broken != nil:
		r.mountHold(r.broken)
		return nil
	}
	return r.openServer()
}

func (r *runtime) openServer() error {
	cfg := hold.Config{
		Identity:     r.identity,
		Repo:         r.repo,
		Network:      r.network,
		Login:        r.options.Hold.Login,
		PasswordFile: r.options.PasswordFile(),
		Folder:       datafolder.ID(r.options.HoldDir()),
		Registries:   r.options.Hold.Registries,
		Owners:       r.options.Hold.Owners,
		Pulls:        auth.Pulls(r.options.Hold.Pulls),
		Audiences:    r.options.Hold.Audiences,
		PLC:          r.options.Hold.PLC,
		Now:          clock.Now,
		Version:      ownVersion(),
		Logger:       r.log,
	}
	if r.notifier != nil {
		cfg.Notifier, cfg.Quotas, cfg.UserData = notices{r.notifier}, r.notifier, notices{r.notifier}
	}
	server, err := hold.New(cfg)
	if err != nil {
		return err
	}
	// Both log their errors, and Run repeats them.
	_ = server.CheckIdentity(context.Background())
	_ = server.UpdateStatus(context.Background())
	r.background(server.Run)
	r.server = server
	r.mountHold(server)
	return nil
}

func movedTo(o *config.Hold) *identity.MovedTo {
	if o.MovedTo == nil {
		return nil
	}
	return &identity.MovedTo{Service: o.MovedTo.Service, Key: identity.Multibase(o.MovedTo.Key)}
}

var holdPaths = []string{"/xrpc/", "/.well-known/did.json", "/.well-known/atproto-did"}

func (r *runtime) mountHold(server http.Handler) {
	for _, path := range holdPaths {
		r.mounts = append(r.mounts, mount{path, server})
	}
}
