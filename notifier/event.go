package notifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
)

// Operations of an Event. Push and pull are notifyManifest's own; the others
// stay in this process.
const (
	opPush   = lexicon.OperationPush
	opPull   = lexicon.OperationPull
	opDelete = "delete" // a manifest
	opUntag  = "untag"  // a tag; the manifest stays
	opForget = "forget" // the records of a manifest, so that a push makes them anew
)

// eventVersion is the shape of Event. A newer one in the journal is refused.
// Up to version 2 Time was that of the TID, and up to version 3 nothing was private.
const eventVersion = 4

// An Event is one thing that happened in the registry, with all that its sinks
// need: an io.atcr.hold.notifyManifest input in an envelope.
type Event struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"` // by the machine's clock
	// TID is the first of the TIDs reserved for what this event makes, as a
	// time in unix microseconds: the post's. Records take those that follow.
	// A pull reserves none.
	TID       int64         `json:"tid,omitempty"`
	ClockID   uint          `json:"clockId,omitempty"`
	TIDs      int           `json:"tids,omitempty"` // how many follow the first
	Actor     string        `json:"actor,omitempty"`
	RequestID string        `json:"requestId,omitempty"`
	Kind      Kind          `json:"kind,omitempty"`
	Class     counter.Class `json:"class,omitempty"` // what it counts as; empty when it is not counted
	Children  []string      `json:"children,omitempty"`
	Foreign   bool          `json:"foreign,omitempty"` // of another owner than the images of this registry
	Call      *Call         `json:"call,omitempty"`    // of an event that another registry told

	// MediaType is set when Manifest is, in the journal, the manifest as it was
	// pushed. What is read from it is filled in by decodeEvent.
	MediaType string `json:"mediaType,omitempty"`

	lexicon.NotifyManifestInput

	unreadable error // what Manifest could not be read for; it is then empty
}

func (e *Event) encode() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return b, nil
}

// pushedPrefix begins an event that encodePushed has written.
const pushedPrefix = `{"pushed":true,`

// encodePushed encodes a push with the manifest as it is, so that a client waits
// for no parsing, whatever the manifest's size.
func (e *Event) encodePushed(manifest []byte) []byte {
	b := make([]byte, 0, len(manifest)+1024)
	b = append(b, pushedPrefix+`"v":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","tid":`...)
	b = strconv.AppendInt(b, e.TID, 10)
	b = append(b, `,"clockId":`...)
	b = strconv.AppendUint(b, uint64(e.ClockID), 10)
	b = append(b, `,"tids":`...)
	b = strconv.AppendInt(b, int64(e.TIDs), 10)
	for _, member := range []struct{ name, value string }{
		{"actor", e.Actor}, {"requestId", e.RequestID}, {"class", string(e.Class)}, {"repository", e.Repository},
		{"tag", e.Tag}, {"userDid", e.UserDID}, {"manifestDigest", e.ManifestDigest}, {"operation", e.Operation},
		{"mediaType", e.MediaType},
	} {
		if member.value != "" {
			b = append(append(append(b, `,"`...), member.name...), `":`...)
			b = appendString(b, member.value)
		}
	}
	b = append(b, manifestMember...)
	b = append(b, manifest...)
	return append(b, '}')
}

// encodePull is encode for an event that has no more than Pull gives it, since
// a client waits for that: the same bytes, without reflection.
func (e *Event) encodePull() []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Class != "" {
		b = appendString(append(b, `,"class":`...), string(e.Class))
	}
	for i, child := range e.Children {
		if i == 0 {
			b = append(b, `,"children":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, child)
	}
	if len(e.Children) > 0 {
		b = append(b, ']')
	}
	b = appendString(append(b, `,"repository":`...), e.Repository)
	if e.Tag != "" {
		b = appendString(append(b, `,"tag":`...), e.Tag)
	}
	b = appendString(append(b, `,"userDid":`...), e.UserDID)
	b = appendString(append(b, `,"manifestDigest":`...), e.ManifestDigest)
	b = appendString(append(b, `,"operation":`...), e.Operation)
	b = appendString(append(b, `,"manifest":{"mediaType":`...), e.Manifest.MediaType)
	return append(b, "}}"...)
}

// appendString appends s as encoding/json writes it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			quoted, _ := json.Marshal(s) // a string has no way to fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// errNewer: an event is of a newer program. It is not given up, it waits for
// that program.
var errNewer = errors.New("decode event")

func decodeEvent(b []byte) (*Event, error) {
	if bytes.HasPrefix(b, []byte(pushedPrefix)) {
		return decodePushed(b)
	}
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	e.Manifest = filtered(e.Manifest)
	return &e, e.known()
}

// decodePushed reads what encodePushed has written. A manifest that can't be
// read leaves an event without layers, for the push has happened.
func decodePushed(b []byte) (*Event, error) {
	envelope, manifest, ok := cutManifest(b)
	var e Event
	err := json.Unmarshal(envelope, &e)
	if err == nil && !ok {
		err = errors.New("it has no manifest")
	}
	if err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	if err := e.known(); err != nil {
		return nil, err
	}
	e.Manifest, e.unreadable = readManifest(e.MediaType, manifest)
	e.Kind = kindOf(&e.Manifest, e.Tag)
	for _, m := range e.Manifest.Manifests {
		e.Children = append(e.Children, m.Digest)
	}
	return &e, nil
}

// manifestMember begins the last member of an event that encodePushed has written.
const manifestMember = `,"manifest":`

// cutManifest parts the manifest from the rest of such an event, so that what
// encoding/json limits, the depth of nesting, is as for the registry. No member
// before it holds these bytes: a string has its quotes escaped.
func cutManifest(b []byte) (envelope, manifest []byte, ok bool) {
	before, after, found := bytes.Cut(b, []byte(manifestMember))
	manifest, ok = bytes.CutSuffix(after, []byte{'}'})
	return append(bytes.Clone(before), '}'), manifest, found && ok
}

func (e *Event) known() error {
	if e.Version > eventVersion {
		return fmt.Errorf("%w: it has version %d and this program knows up to %d; use the newer program that wrote it", errNewer, e.Version, eventVersion)
	}
	return nil
}

// stampOf reads the stamp of an encoded event without the rest of it.
func stampOf(payload []byte) (stamp, bool) {
	head := payload[:min(len(payload), 256)]
	_, rest, ok := bytes.Cut(head, []byte(`"time":"`))
	text, _, ended := bytes.Cut(rest, []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return stamp{at, int64(member(head, `"tid":`)), uint(member(head, `"clockId":`))}, ok && ended && err == nil
}

// member reads a number behind its name, 0 if it is not there.
func member(b []byte, name string) uint64 {
	_, rest, _ := bytes.Cut(b, []byte(name))
	end := 0
	for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseUint(string(rest[:end]), 10, 64)
	return n
}

func (e *Event) stamp() stamp { return stamp{e.Time, e.TID, e.ClockID} }

// ID names the event: the TID of its post, unique in the journal and, but for
// equal clock ids, among replicas.
func (e *Event) ID() string { return tid(e.TID, e.ClockID) }

// Name is what the repository is called here: by the counters, by what is
// public, to readers. Another owner's has the owner in front of it, which no
// repository of this registry can be called, and what was told to be private has
// privatePrefix.
func (e *Event) Name() string {
	name := e.Repository
	if e.Foreign {
		name = e.UserDID + "/" + e.Repository
	}
	if e.private() {
		name = privatePrefix + name
	}
	return name
}
