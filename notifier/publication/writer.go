package publication

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/post"
)

const (
	refusedFor   = time.Hour   // how long a publication that was refused is not tried again
	publishAgain = time.Minute // between two attempts to write it without posts
	publishTries = 3           // after which posts have no documents, if the account can be reached
)

// A Writer writes the record of a publication before the first post that names it, or without
// posts. If the account refuses the record, posts have no documents for a while. Its methods
// must not be called concurrently.
type Writer struct {
	*Site
	Account *delivery.Repo
	DryRun  bool // nothing is written
	Now     func() time.Time
	Log     *slog.Logger

	refused  time.Time // when the record was refused; zero: it was not
	failures int       // to write it, in a row
}

// Written returns the record, which it writes if need be; zero if the account refuses it. It
// returns an error if the account can't be reached or written to.
func (w *Writer) Written(ctx context.Context) (post.Ref, error) {
	if ref, ok := w.Ref(); ok || w.DryRun || w.recentlyRefused() {
		return ref, nil
	}
	err := w.Publish(ctx, w.Account)
	if err != nil && w.givesUp(ctx, err) {
		w.refused, w.failures = w.Now(), 0
		w.Log.Error("the publication can't be written; posts have no documents", "again", w.refused.Add(refusedFor), "error", err)
		return post.Ref{}, nil
	}
	ref, _ := w.Ref()
	return ref, err
}

// givesUp reports whether posts are to be written without documents after an error of the
// publication: if it is refused, or has failed several times while the account can be reached.
func (w *Writer) givesUp(ctx context.Context, err error) bool {
	if Refused(err) {
		return true
	}
	var failed *pds.Error
	limited := errors.As(err, &failed) && (failed.Outcome == pds.Suspended || failed.Outcome == pds.Limited && failed.Method != pds.UploadBlobMethod)
	if w.failures++; limited || delivery.RepoFails(err) || ctx.Err() != nil || w.failures < publishTries {
		return false
	}
	_, unread := w.Account.Rev(ctx)
	return unread == nil
}

func (w *Writer) recentlyRefused() bool {
	since := w.Now().Sub(w.refused)
	return !w.refused.IsZero() && since >= 0 && since < refusedFor
}

// Write writes the record if need be, also without a post, and returns when it is to be called
// again; zero: not for the record.
func (w *Writer) Write(ctx context.Context) (next time.Time) {
	if w.DryRun {
		return time.Time{}
	}
	ref, err := w.Written(ctx)
	switch {
	case err != nil:
		w.Log.Warn("the publication is written later", "error", err)
		return w.Now().Add(publishAgain)
	case ref.CID == "":
		return w.refused.Add(refusedFor)
	}
	return time.Time{}
}
