package notifier

import (
	"context"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// A Notice is what another registry tells of a manifest that was pushed to it,
// or pulled from it. It was checked: this is an input that lexicon has read,
// its digests are digests and its names are names.
type Notice struct {
	lexicon.NotifyManifestInput
	Issuer string // DID of the account that tells
	Token  string // names the token that it came with, which is good for one event
	Key    string // the call's Idempotency-Key, empty if it has none
}

const (
	// answerWait is how long an answer waits for what the sinks do.
	answerWait = 5 * time.Second
	// maxAnswers is how many answers wait at a time. Others go out at once.
	maxAnswers = 64
)

// Notify records what another registry tells. When it returns without an error
// the event is on disk and will reach every sink; the answer says what became
// of it within a few seconds, and leaves out what is not known by then.
//
// Called again with the same issuer and key it does nothing and answers the
// same. ErrKey and ErrToken refuse a call. After any other error the event is
// not recorded, or not known to be: the same call may be made again, with a
// key without harm.
func (n *Notifier) Notify(ctx context.Context, notice Notice) (lexicon.NotifyManifestOutput, error) {
	e, err := n.told(&notice)
	if err != nil {
		return lexicon.NotifyManifestOutput{}, err
	}
	earlier, err := n.calls.begin(ctx, e.Call)
	if err != nil {
		return lexicon.NotifyManifestOutput{}, err
	}
	if earlier != nil && earlier.Answer != nil {
		return *earlier.Answer, nil
	}
	if earlier != nil {
		return n.answer(ctx, earlier.Seq, e), nil
	}
	seq, err := n.append(ctx, e)
	n.calls.end(e.Call, seq)
	if err != nil {
		n.Metrics.event(e.Operation, "refused")
		return lexicon.NotifyManifestOutput{}, err
	}
	n.Metrics.event(e.Operation, "recorded")
	n.log.Info("told by another registry", "operation", e.Operation, "repository", e.Name(), "tag", e.Tag, "digest", e.ManifestDigest, "issuer", e.Actor)
	return n.answer(ctx, seq, e), nil
}

// told makes the event of a notice, but for its time and class.
func (n *Notifier) told(notice *Notice) (*Event, error) {
	if notice.Operation == "" {
		notice.Operation = opPush
	}
	if notice.Operation == opPull || notice.Visibility == lexicon.VisibilityPublic {
		notice.Visibility = "" // it counts on a push only
	}
	notice.Manifest = withoutAnnotations(notice.Manifest)
	call, err := newCall(notice)
	if err != nil {
		return nil, err
	}
	notice.Manifest = filtered(notice.Manifest)
	return &Event{
		Version:             eventVersion,
		Actor:               notice.Issuer,
		Kind:                kindOf(&notice.Manifest, notice.Tag),
		Foreign:             notice.UserDID != n.Owner,
		Call:                call,
		NotifyManifestInput: notice.NotifyManifestInput,
	}, nil
}

// append gives the event its time and class and makes it durable. The caller
// may leave meanwhile.
func (n *Notifier) append(ctx context.Context, e *Event) (uint64, error) {
	if e.Operation == opPush {
		e.Class = counter.Push
		layers, _ := layersOf(&e.Manifest)
		e.TIDs = len(layers)
		for _, m := range e.Manifest.Manifests {
			e.Children = append(e.Children, m.Digest)
		}
	} else {
		e.Class, _, e.Children = n.Rule.Class(n.pullOf(e))
		e.Manifest = lexicon.ManifestInfo{MediaType: e.Manifest.MediaType}
	}
	e.Time, e.TID, e.ClockID = n.clock.reserve(1 + e.TIDs)
	e.Time = e.Time.UTC()
	payload, err := e.encode()
	if err != nil {
		return 0, err
	}
	seq, err := n.Journal.Append(context.WithoutCancel(ctx), journal.Pushes, uint64(e.TID)+uint64(e.TIDs), payload)
	if err != nil {
		return 0, err
	}
	n.recent.add(seq, payload)
	if e.Operation == opPush {
		// The children of a pushed index are known from now on.
		n.Rule.Class(counter.Request{Method: http.MethodPut, Repository: e.Name(), Tag: e.Tag, Digest: e.ManifestDigest, Children: e.Children})
		if e.Kind.supporting() {
			n.Rule.LearnArtifact(e.Name(), e.ManifestDigest)
		}
	}
	return seq, nil
}

// pullOf is what the counting rule looks at. Who asked the other registry, and
// with what, it does not tell.
func (n *Notifier) pullOf(e *Event) counter.Request {
	q := counter.Request{
		Method:     http.MethodGet,
		Repository: e.Name(),
		Tag:        e.Tag,
		Digest:     e.ManifestDigest,
		Kind:       e.Kind.countedAs(e.Tag),
		Actor:      e.Actor,
	}
	for _, m := range e.Manifest.Manifests {
		q.Children = append(q.Children, m.Digest)
	}
	return q
}

// answer waits for what the sinks do with an event, for a while.
func (n *Notifier) answer(ctx context.Context, seq uint64, e *Event) lexicon.NotifyManifestOutput {
	wait := time.NewTimer(answerWait)
	defer wait.Stop()
	select {
	case n.answers <- struct{}{}:
		defer func() { <-n.answers }()
	default:
		wait.Reset(0)
	}
	for waiting := true; waiting; {
		changed := n.results.listen()
		if out, whole := n.outcome(seq, e); whole {
			if err := n.calls.answered(e.Call, seq, out); err != nil {
				n.log.Warn("an answer is not kept", "event", seq, "err", err)
			}
			return out
		}
		select {
		case <-changed:
		case <-wait.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	out, _ := n.outcome(seq, e)
	return out
}

// outcome is what is known by now, and whether that is all there will be.
func (n *Notifier) outcome(seq uint64, e *Event) (out lexicon.NotifyManifestOutput, whole bool) {
	counted := n.Counter.Latest(uint8(journal.Pushes)) >= seq
	if e.Operation == opPull {
		return lexicon.NotifyManifestOutput{Success: true, Operation: opPull, StatsUpdated: counted}, counted
	}
	out, _, err := n.Result(seq)
	if err != nil {
		n.log.Warn("what became of an event can't be read", "event", seq, "err", err)
		out = lexicon.NotifyManifestOutput{Success: true, Operation: opPush}
	}
	out.StatsUpdated = counted
	nothing, no := 0, false
	public := n.Publisher != nil && n.Public(e.Name())
	if !public && !(e.private() && n.Publisher != nil) { // else its records may have to go
		out.LayersCreated = &nothing
	}
	if !public || n.Announce == nil || !plan(e).Post {
		out.PostCreated, out.PostURI = &no, ""
	}
	return out, counted && out.LayersCreated != nil && out.PostCreated != nil
}
