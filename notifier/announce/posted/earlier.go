package posted

import (
	"slices"

	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// NoteEarlier adds rows for the posts that earlier versions of the program have written, as
// far as the versions of images name them. It is done once; after a crash it begins again.
func (h *History) NoteEarlier(all *versions.Store) error {
	if h.noted {
		return nil
	}
	var err error
	if h.noted, err = state.Has(h.db, state.PostsListed); err != nil || h.noted {
		return err
	}
	var b state.Batch
	b.DeleteRange(state.Prefix(state.Posts))
	b.DeleteRange(state.Prefix(state.PostImages))
	changes := 0
	err = all.Each(func(v versions.Version) error {
		if v.Post == "" {
			return nil
		}
		if err := h.noteVersion(&b, v); err != nil {
			return err
		}
		if changes++; changes%1000 != 0 {
			return nil
		}
		err := h.db.Commit(&b, state.NoSync)
		b = state.Batch{}
		return err
	})
	if err != nil {
		return err
	}
	b.Set(state.PostsListed, nil)
	if err = h.db.Commit(&b, state.Sync); err == nil {
		h.noted = true
	}
	return err
}

// noteVersion adds a version to the rows of its post.
func (h *History) noteVersion(b *state.Batch, v versions.Version) error {
	row, _, err := Read(h.db, b, v.Post)
	if err != nil {
		return err
	}
	before, err := h.Get(v.Repository, v.Digest)
	if err != nil {
		return err
	}
	own := slices.ContainsFunc(before, func(e Entry) bool { return e.RKey == v.Post && !e.Joined })
	if own && row.Repository == "" {
		row.Repository, row.Digest, row.Tags = v.Repository, v.Digest, append([]string{v.Name}, v.Tags...)
	} else if err := (Image{Repository: v.Repository, Digest: v.Digest, Name: v.Name}).Set(b, v.Post, row.Versions); err != nil {
		return err
	}
	row.Versions++
	return row.Set(b, v.Post)
}
