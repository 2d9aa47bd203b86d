package middleware

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/handles"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier/owners"
)

// openHandles creates the resolver of the owners' handles. With actors.strict, it keeps
// those in the cache that decide about pushes.
func (r *runtime) openHandles() error {
	rules := owners.Rules{List: r.options.OwnerRules()}
	cfg := handles.Config{Keep: rules.Handles(), PLC: r.options.Directory()}
	if rules.FirstComponent() {
		for _, actor := range r.options.Actors.Accounts {
			cfg.KeepAccounts = append(cfg.KeepAccounts, actor.DID)
		}
	}
	r.handles = handles.New(cfg)
	r.onClose(r.handles.Close)
	return nil
}

// ownerRules returns the rules of whose images a repository has.
func (r *runtime) ownerRules() owners.Rules {
	owner := r.options.Owner
	if owner == "" {
		owner = r.account
	}
	return owners.Rules{List: r.options.OwnerRules(), Default: owner}
}

// permit returns the function that decides who may push; nil: everybody whom the registry
// admits.
func (r *runtime) permit() func(repository, actor string) error {
	if !r.options.Actors.Strict {
		return nil
	}
	rules := r.ownerRules()
	access := &owners.Access{Rules: &rules, Accounts: r.options.Actors.AccountsOf(), Resolved: r.handles.Cached}
	return func(repository, actor string) error { return refusal(access.Check(repository, actor)) }
}

// retryResolve is when a client may push again if the owner's handle is not resolved.
const retryResolve = 10 * time.Second

// refusal is the answer to a client that may not push.
func refusal(err error) error {
	var mismatch *owners.UserMismatch
	switch {
	case errors.As(err, &mismatch):
		return observe.Denied(mismatch.Error())
	case errors.Is(err, owners.ErrUnresolved):
		return observe.RetryLater("nothing was stored: it is not known yet whose repository it is ("+err.Error()+"); push again", retryResolve)
	}
	return err
}

// publicOptions identifies the options that decide which records there are.
func (r *runtime) publicOptions() string {
	id := strings.Join(append([]string{r.options.Owner}, r.options.Public...), "\n")
	if rules := r.ownerRules(); len(rules.List) > 0 {
		id += "\nowners\n" + rules.String()
	}
	return id
}

// statsResolve is how long a stats record waits for the handle of its owner.
const statsResolve = 10 * time.Second

// statsOwner returns the function that returns the owner of a repository, or false if its
// handle can't be resolved.
func (r *runtime) statsOwner() func(ctx context.Context, repository string) (string, bool) {
	rules := r.ownerRules()
	return func(ctx context.Context, repository string) (string, bool) {
		owner := rules.Of(repository)
		if owner.Handle == "" {
			return owner.DID, true
		}
		ctx, cancel := context.WithTimeout(ctx, statsResolve)
		defer cancel()
		did, err := r.handles.Resolve(ctx, owner.Handle)
		return did, err == nil
	}
}
