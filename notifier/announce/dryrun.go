package announce

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/pushrow"
)

// In a dry run everything is decided as usual, with the cooldowns and the daily limit, and
// waiting versions are kept. But a post ends in the log: it is not put into the outbox, and its
// versions are not added to the history, so that a later push of them is announced. Posts
// that were in the outbox before, and posts that are to be deleted, stay where they are
// until the dry run ends. So nothing is written to the account.

// reasonDryRun is what the API shows for the pushes of a post that was only logged.
const reasonDryRun = "dry run"

// commitDry makes the decision durable, without its posts, and logs them.
func (d *decision) commitDry(ctx context.Context) error {
	posts := d.sending
	d.sending = nil
	for _, a := range posts {
		d.changed = true
		for _, v := range append(a.Others, a.version) {
			if err := d.result(v.Seqs, pushrow.Announce{Reason: reasonDryRun}); err != nil {
				return err
			}
		}
	}
	if err := d.commit(ctx); err != nil {
		return err
	}
	for _, a := range posts {
		d.Metrics.Post("dry_run")
		d.Log.Info("dry run: not posted", "repository", a.Repository, "digest", a.Digest, "versions", a.versions(), "text", a.text())
	}
	return nil
}

// text is the text of the post.
func (a *announcement) text() string {
	record, err := lexicon.Unmarshal(a.Write.Record)
	if err != nil {
		return ""
	}
	text, _ := record["text"].(string)
	return text
}
