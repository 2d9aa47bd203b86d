package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// Deactivate is for an account that has moved to a place, in words like
// "https://pds.example.com". From here on, and after every Open until Activate,
// writes are refused with ErrDeactivated. The log gets #identity and #account,
// once for each place; told says whether that was now. Called again with the
// same place it changes nothing. After an error writes are refused until the
// repository is closed, but the log may say nothing: call it again.
func (r *Repo) Deactivate(ctx context.Context, place string) (told bool, err error) {
	r.place.Store(&place)
	known, err := r.readPlace()
	if err == nil && known != place {
		told = true
		_, err = r.hand(request{ctx: ctx, work: func(w *writer, b *pebble.Batch) error {
			b.Set(keyPlace, []byte(place), nil)
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Deactivated))
		}})
	}
	if err != nil {
		return false, fmt.Errorf("deactivate: %w", err)
	}
	return told, nil
}

// Activate brings back an account that had moved away: #identity, #account and
// the #sync of a fresh commit, in one transaction, and writes are taken again.
// An account that is here is left alone.
func (r *Repo) Activate(ctx context.Context) (told bool, err error) {
	if r.Place() == "" {
		return false, nil
	}
	err = r.Suspended()
	if err == nil {
		_, err = r.hand(request{ctx: ctx, work: func(w *writer, b *pebble.Batch) error {
			b.Delete(keyPlace, nil)
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Account), w.restate(b, w.next.Data))
		}})
	}
	if err != nil {
		return false, fmt.Errorf("activate: %w", err)
	}
	r.place.Store(nil)
	return true, nil
}

// Place is where the account has moved to, "" while it is here.
func (r *Repo) Place() string {
	if place := r.place.Load(); place != nil {
		return *place
	}
	return ""
}

func (r *Repo) readPlace() (string, error) {
	v, err := r.acquire()
	if err != nil {
		return "", err
	}
	defer r.release(v)
	return storedPlace(v.snap)
}

func storedPlace(db pebble.Reader) (string, error) {
	place, err := store.Read(db, keyPlace)
	if errors.Is(err, pebble.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read where the account is: %w", err)
	}
	return string(place), nil
}

// elsewhere is what writes are refused with while the account is not here.
func (r *Repo) elsewhere() error {
	if place := r.Place(); place != "" {
		return fmt.Errorf("%w, to %s", ErrDeactivated, place)
	}
	return nil
}

// tells reports whether a request does no more than tell again that the account
// is not here.
func (q request) tells() bool {
	other := func(n Notice) bool { return n != Identity && n != Deactivated }
	return q.work == nil && !q.commit && len(q.notices) > 0 && !slices.ContainsFunc(q.notices, other)
}

// keepPlace lets a repository that is made anew know where the account is. What
// is lost of that, the next Deactivate tells again.
func (r *rescue) keepPlace(context.Context) error {
	place, err := storedPlace(r.from)
	if err != nil || place == "" {
		return nil
	}
	return r.to.set(keyPlace, []byte(place))
}
