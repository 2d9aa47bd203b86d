package middleware

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/reference"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A Preview is what would be posted for an image.
type Preview struct {
	announce.Preview
	Unchecked string // why it is not known what was announced before; "": it is known
}

// PreviewAnnouncement returns what would be posted for an image in the registry's storage,
// such as "oss/app:v1.2.3", if it were pushed now; for "" with sample facts. It changes
// nothing. While a server has the data folder open, it is not known what was announced
// before.
func PreviewAnnouncement(ctx context.Context, host *configuration.Configuration, image string) (p Preview, err error) {
	r, err := previewRuntime(ctx, host)
	if err != nil {
		return p, err
	}
	if err := r.openHandles(); err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, r.handles.Close()) }()
	cfg, err := r.announce()
	if err != nil {
		return p, err
	}
	previews := announce.Previews{Config: *cfg, Public: r.options.Visible, Account: r.account, Now: clock.Now, Log: r.log}
	if image == "" {
		p.Preview, err = previews.Sample()
		return p, err
	}
	storage := r.storage()
	if storage == nil {
		return p, errors.New("the registry's storage is in memory or a pull-through cache, which this command cannot read; without an image it shows sample facts")
	}
	previews.Storage = stored.NewChecked(storage, r.log)
	db, closeState, unchecked, err := readState(r.options)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, closeState()) }()
	previews.State, p.Unchecked = db, unchecked
	p.Preview, err = previewImage(ctx, previews, image)
	return p, err
}

// previewRuntime returns a runtime that has opened nothing.
func previewRuntime(ctx context.Context, host *configuration.Configuration) (*runtime, error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return nil, err
	}
	if !found || !options.Enabled || options.Announce == nil {
		return nil, fmt.Errorf("nothing is announced; add `announce: {}` to the options of %s", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(os.Stderr, host.Log)}
	r.account, err = accountOf(ctx, options)
	return r, err
}

// accountOf returns the DID of the account that is written to; "" if it is not known yet,
// and can't be resolved.
func accountOf(ctx context.Context, o *config.Options) (string, error) {
	switch {
	case o.Hold != nil:
		return identity.DIDWeb(o.Hold.Hostname)
	case o.Account == nil:
		return "", nil
	}
	cfg := o.PDS()
	cfg.ReadOnly = true
	account, err := pds.Open(cfg)
	if err != nil {
		return "", fmt.Errorf("options.account: %w", err)
	}
	if account.DID() == "" {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		_ = account.Resolve(ctx) // nothing was announced yet, so the DID is in no post
	}
	return account.DID(), nil
}

// previewImage returns the preview of an image that is named by tag, digest or both.
func previewImage(ctx context.Context, previews announce.Previews, image string) (announce.Preview, error) {
	ref, err := reference.Parse(image)
	named, ok := ref.(reference.Named)
	if err != nil || !ok {
		return announce.Preview{}, fmt.Errorf("%q is not an image; write it as the registry names it, such as oss/app:v1.2.3 or oss/app@sha256:…", image)
	}
	var digest string
	var tags []string
	if tagged, ok := ref.(reference.Tagged); ok {
		tags = []string{tagged.Tag()}
	}
	if digested, ok := ref.(reference.Digested); ok {
		digest = digested.Digest().String()
	} else if len(tags) == 0 {
		return announce.Preview{}, fmt.Errorf("%q has neither a tag nor a digest; write it such as %s:v1.2.3", image, named.Name())
	} else if digest, err = previews.Storage.Tagged(ctx, named.Name(), tags[0]); err != nil {
		return announce.Preview{}, notInStorage(image, err)
	}
	p, err := previews.Of(ctx, named.Name(), digest, tags)
	return p, notInStorage(image, err)
}

func notInStorage(image string, err error) error {
	if errors.Is(err, stored.ErrNotStored) {
		return fmt.Errorf("%s: %w; push it first, or check its name, which has no host", image, err)
	}
	return err
}

// readState opens the state of a stopped registry to be read; db is nil if there is none, or
// if it can't be read at the moment, as unchecked says.
func readState(o *config.Options) (db state.Store, closeState func() error, unchecked string, err error) {
	nothing := func() error { return nil }
	if _, err := os.Stat(o.StateDir()); errors.Is(err, os.ErrNotExist) {
		return nil, nothing, "", nil // nothing was announced
	}
	unlock, err := datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return nil, nothing, "the state is in use by the running server", nil
	}
	if err != nil {
		return nil, nothing, "the state cannot be opened: " + err.Error(), nil
	}
	store, err := state.Open(state.Config{Dir: o.StateDir(), ReadOnly: true})
	if err != nil {
		return nil, nothing, "", errors.Join(err, unlock())
	}
	return state.OnPebble(store), func() error { return errors.Join(store.Close(), unlock()) }, "", nil
}
