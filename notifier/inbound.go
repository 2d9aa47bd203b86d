package notifier

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/quota"
)

const (
	// answerTimeout is how long an answer waits for the sinks.
	answerTimeout = 5 * time.Second
	// maxAnswers is how many answers wait at once. Others are sent immediately.
	maxAnswers = 64
)

// Notify records what another registry reports. When it returns without an error, the
// event is durable and will reach every sink. The answer has the results of the first few
// seconds, and leaves out what is not known by then.
//
// A repeated call with the same issuer and key has no effect and returns the same
// answer. inbound.ErrTokenUsed and inbound.ErrKeyReused refuse a notification. After a
// *quota.ExceededError nothing is recorded, and the same call can be repeated later. After
// any other error it is not known whether the event is recorded; a notification with
// a key can be repeated without harm.
func (n *Notifier) Notify(ctx context.Context, notification inbound.Notification) (lexicon.NotifyManifestOutput, error) {
	if notification.Unlisted && n.journal.HalfFull(journal.Pushes) {
		return lexicon.NotifyManifestOutput{}, inbound.ErrBusy // at the limit pushes would be dropped
	}
	e, err := n.notifiedEvent(&notification)
	if err != nil {
		return lexicon.NotifyManifestOutput{}, err
	}
	earlier, err := n.inbound.Begin(ctx, e.Inbound)
	if err != nil {
		return lexicon.NotifyManifestOutput{}, err
	}
	if earlier != nil && e.Unlisted {
		return unlistedAnswer, nil
	}
	if earlier != nil && earlier.Answer != nil {
		return *earlier.Answer, nil
	}
	if earlier != nil {
		return n.answer(ctx, earlier.Seq, e), nil
	}
	seq, err := n.appendWithinQuota(ctx, e)
	n.inbound.End(e.Inbound, seq)
	var exceeded *quota.ExceededError
	if errors.As(err, &exceeded) {
		return lexicon.NotifyManifestOutput{}, err
	}
	if err != nil {
		n.metrics.Event(e.Operation, "refused")
		return lexicon.NotifyManifestOutput{}, err
	}
	n.metrics.Event(e.Operation, "recorded")
	if e.Unlisted {
		return unlistedAnswer, nil
	}
	n.log.Info("notification of another registry recorded", "operation", e.Operation, "repository", e.Name(), "tag", e.Tag, "digest", e.ManifestDigest, "issuer", e.Actor)
	return n.answer(ctx, seq, e), nil
}

// unlistedAnswer is the answer to each pull that an unlisted account reports. Such a pull is
// counted only if its image is known and public, which the account must not learn. So all of
// them are recorded, what is counted is decided later, and no answer waits for it.
var unlistedAnswer = lexicon.NotifyManifestOutput{Success: true, Operation: event.OpPull}

// notifiedEvent is the event of a notification, without its time and class. That of an
// unlisted account has no children and no referrers tag: the classifier would learn them and
// classify the requests of others by them.
func (n *Notifier) notifiedEvent(in *inbound.Notification) (*event.Event, error) {
	if in.Operation == "" {
		in.Operation = event.OpPush
	}
	if in.Operation == event.OpPull || in.Visibility == lexicon.VisibilityPublic {
		in.Visibility = "" // only a push can make an image private
	}
	annotations := post.SelectAnnotations(in.Manifest.Annotations, n.recent.Annotations)
	in.Manifest = event.WithoutAnnotations(in.Manifest)
	id, err := inbound.NewID(in)
	if err != nil {
		return nil, err
	}
	in.Manifest = event.FilterManifest(in.Manifest)
	in.Manifest.Annotations = annotations
	if _, refers := classify.ReferrersTag(in.Tag); refers && in.Unlisted {
		in.Tag = ""
	}
	e := &event.Event{
		Version:             event.Version,
		Actor:               in.Issuer,
		Kind:                event.KindOf(&in.Manifest, in.Tag),
		Foreign:             in.UserDID != n.owners.Of(in.Repository).DID,
		Unlisted:            in.Unlisted,
		Inbound:             id,
		NotifyManifestInput: in.NotifyManifestInput,
	}
	if e.Unlisted {
		e.Manifest = lexicon.ManifestInfo{MediaType: e.Manifest.MediaType}
	}
	return e, nil
}

// appendWithinQuota is appendNotified for a push that fits into its owner's quota.
func (n *Notifier) appendWithinQuota(ctx context.Context, e *event.Event) (uint64, error) {
	reserved, err := n.reservePush(ctx, e, func() *lexicon.ManifestInfo { return &e.Manifest })
	if err != nil {
		return 0, err
	}
	seq, err := n.appendNotified(ctx, e)
	if err != nil {
		reserved.Release()
		return 0, err
	}
	n.noteFreeing(seq, e)
	reserved.Record(seq)
	return seq, nil
}

// appendNotified gives an event its time and class and makes it durable, also if ctx
// ends.
func (n *Notifier) appendNotified(ctx context.Context, e *event.Event) (uint64, error) {
	if e.Operation == event.OpPush {
		e.Class = counts.Push
		layers, _ := event.LayersOf(&e.Manifest)
		e.TIDs = len(layers)
		e.Children = event.ChildrenOf(&e.Manifest)
	} else {
		e.Class, _, e.Children = n.classifier.Class(pullRequest(e))
		e.Manifest = lexicon.ManifestInfo{MediaType: e.Manifest.MediaType}
	}
	e.Time, e.TID, e.ClockID = n.clock.Reserve(1 + e.TIDs)
	e.Time = e.Time.UTC()
	payload, err := e.Encode()
	if err != nil {
		return 0, err
	}
	seq, err := n.journal.Append(context.WithoutCancel(ctx), journal.Pushes, uint64(e.TID)+uint64(e.TIDs), payload)
	if err != nil {
		return 0, err
	}
	n.recent.Add(seq, payload)
	if e.Operation == event.OpPush {
		// From now on pulls of the children count as pulls of the index.
		n.classifier.Class(classify.Request{Method: http.MethodPut, Repository: e.Name(), Tag: e.Tag, Digest: e.ManifestDigest, Children: e.Children})
		if e.Kind.Supporting() {
			n.classifier.LearnArtifact(e.Name(), e.ManifestDigest)
		}
	}
	return seq, nil
}

// pullRequest is the request that the classifier gets for a notification of a pull.
// The client and the user agent are not known.
func pullRequest(e *event.Event) classify.Request {
	return classify.Request{
		Method:     http.MethodGet,
		Repository: e.Name(),
		Tag:        e.Tag,
		Digest:     e.ManifestDigest,
		Kind:       e.Kind.CountedAs(e.Tag),
		Actor:      e.Actor,
		Children:   event.ChildrenOf(&e.Manifest),
	}
}

// answer waits for the sinks to process an event, up to answerTimeout.
func (n *Notifier) answer(ctx context.Context, seq uint64, e *event.Event) lexicon.NotifyManifestOutput {
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	select {
	case n.answerSlots <- struct{}{}:
		defer func() { <-n.answerSlots }()
	default:
		timeout.Reset(0)
	}
	n.answers.Add(1)
	defer n.answers.Add(-1)
	n.awaited.Send()
	mayPost := event.PlanOf(e).Post
	for waiting := true; waiting; {
		changed := n.progress.Wait()
		if out, complete := n.outcome(seq, e, mayPost); complete {
			if err := n.inbound.KeepAnswer(e.Inbound, seq, out); err != nil {
				n.log.Warn("an answer can't be kept", "event", seq, "error", err)
			}
			return out
		}
		select {
		case <-changed:
		case <-timeout.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	out, _ := n.outcome(seq, e, mayPost)
	return out
}

// outcome is what the sinks have done for an event so far, and whether that is
// complete. mayPost is the Post of the event's plan.
func (n *Notifier) outcome(seq uint64, e *event.Event, mayPost bool) (out lexicon.NotifyManifestOutput, complete bool) {
	counted := n.counter.Latest(uint8(journal.Pushes)) >= seq
	if e.Operation == event.OpPull {
		return lexicon.NotifyManifestOutput{Success: true, Operation: event.OpPull, StatsUpdated: counted}, counted
	}
	out, _, err := n.result(seq)
	if err != nil {
		n.log.Warn("the result of an event can't be read", "event", seq, "error", err)
		out = lexicon.NotifyManifestOutput{Success: true, Operation: event.OpPush}
	}
	out.StatsUpdated = counted
	none, no := 0, false
	public := n.account != nil && n.public(e.Name())
	if !public && (n.account == nil || !e.Private()) { // records of a private image may have to be deleted
		out.LayersCreated = &none
	}
	if !public || n.announce == nil || !mayPost {
		out.PostCreated, out.PostURI = &no, ""
	}
	return out, counted && out.LayersCreated != nil && out.PostCreated != nil
}

// uncountedNotifications calls visit with the notifications that an earlier process
// recorded and did not count.
func (n *Notifier) uncountedNotifications(visit func(inbound.Recorded)) error {
	for after := n.counter.Latest(uint8(journal.Pushes)); ; {
		entries, err := n.journal.Read(journal.Pushes, after, countEvents, countBytes)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return nil
		}
		for _, entry := range entries {
			after = entry.Seq
			if !bytes.Contains(entry.Payload, []byte(event.InboundMember)) {
				continue // most events: decoding all of them would take long
			}
			e, err := event.Decode(entry.Payload)
			if errors.Is(err, event.ErrNewer) {
				return err
			}
			if err == nil && e.Inbound != nil { // an unreadable one is given up when it is counted
				visit(inbound.Recorded{Seq: entry.Seq, Time: e.Time, ID: e.Inbound})
			}
		}
	}
}
