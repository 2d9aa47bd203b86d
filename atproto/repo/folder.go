package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// Found notes in which folder the repository is, by a name that no copy of the
// folder has. If it was in another at the last call it is a copy, perhaps an
// older one, of what subscribers have followed: the log gets the #sync of a fresh
// commit, or that the account is not here, in the transaction that notes the new
// name, and told is true. An empty name is not known and changes nothing.
func (r *Repo) Found(ctx context.Context, folder string) (told bool, err error) {
	if folder == "" {
		return false, nil
	}
	before, known, err := r.readFolder()
	if err == nil && (!known || before != folder) {
		told = known
		err = r.noteFolder(ctx, folder, told)
	}
	if err != nil {
		return false, fmt.Errorf("note the repository's folder: %w", err)
	}
	return told, nil
}

func (r *Repo) noteFolder(ctx context.Context, folder string, tell bool) error {
	if err := r.Suspended(); tell && err != nil {
		return err
	}
	_, err := r.hand(request{ctx: ctx, work: func(w *writer, b *pebble.Batch) error {
		b.Set(keyFolder, []byte(folder), nil)
		switch {
		case !tell:
			return nil
		case r.Place() != "":
			return errors.Join(w.addNotice(b, Identity), w.addNotice(b, Deactivated))
		}
		return w.restate(b, w.next.Data)
	}})
	return err
}

func (r *Repo) readFolder() (name string, known bool, err error) {
	v, err := r.acquire()
	if err != nil {
		return "", false, err
	}
	defer r.release(v)
	folder, err := store.Read(v.snap, keyFolder)
	if errors.Is(err, pebble.ErrNotFound) {
		return "", false, nil
	}
	return string(folder), err == nil, err
}
