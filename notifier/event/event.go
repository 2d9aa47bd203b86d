package event

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/inbound"
)

// Operations of an Event. Push and pull are those of notifyManifest; the others are
// internal.
const (
	OpPush   = lexicon.OperationPush
	OpPull   = lexicon.OperationPull
	OpDelete = "delete" // a manifest
	OpUntag  = "untag"  // a tag; the manifest stays
	OpForget = "forget" // of the records of a manifest, which the next push creates again
	OpDisown = "disown" // of a manifest that the ledger knows only from records, which stay

	OpForgetOwner = "forgetOwner" // of all records of an owner, at the owner's request
	OpPurge       = "purge"       // of all that was published of a repository, which keeps its images
)

// Version is the version of Event's encoding. A newer one in the journal is
// refused. Up to version 2 Time was the time of the TID; up to version 3 there were no
// private images; up to version 4 UserDID was always set.
const Version = 5

// RemovalVersion is the version of events that remove what was published of an owner or of a
// repository. A program that does not know them must not pass over one: it leaves it pending.
const RemovalVersion = 6

// An Event is a push, pull or delete with everything that the sinks need: an
// io.atcr.hold.notifyManifest input in an envelope.
type Event struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"` // of the system clock
	// TID is the first of the TIDs that are reserved for the event, in unix
	// microseconds: the post's. Those that follow are for records. A pull has none.
	TID       int64        `json:"tid,omitempty"`
	ClockID   uint         `json:"clockId,omitempty"`
	TIDs      int          `json:"tids,omitempty"` // how many follow the first one
	Actor     string       `json:"actor,omitempty"`
	RequestID string       `json:"requestId,omitempty"`
	Kind      Kind         `json:"kind,omitempty"`
	Class     counts.Class `json:"class,omitempty"` // what it is counted as; "": it is not counted
	Children  []string     `json:"children,omitempty"`
	Foreign   bool         `json:"foreign,omitempty"`  // of another owner than this registry's images in the repository
	Unlisted  bool         `json:"unlisted,omitempty"` // a pull that an account reported which is not configured
	// OwnerHandle is the owner's handle if the DID is not known yet; UserDID is then "".
	OwnerHandle string `json:"ownerHandle,omitempty"`
	// Origin is the sequence number of the push that was parked and is repeated with the
	// DID of its owner; 0: it is not repeated.
	Origin  uint64      `json:"origin,omitempty"`
	Inbound *inbound.ID `json:"call,omitempty"` // of an event that another registry reported; else nil

	// MediaType is set if the journal has the manifest as it was pushed; Decode
	// then fills in Manifest, Kind and Children.
	MediaType string `json:"mediaType,omitempty"`

	lexicon.NotifyManifestInput

	Retry      *Retry `json:"-"` // of an event that is retried; else nil
	Unreadable error  `json:"-"` // why the manifest could not be read; Manifest is then empty
}

// Encode encodes an event for the journal.
func (e *Event) Encode() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return b, nil
}

// InboundMember occurs in the encoding of each event with Inbound.
const InboundMember = `"call":{`

// pushedPrefix begins an event that EncodePushed encoded.
const pushedPrefix = `{"pushed":true,`

// EncodePushed encodes a push with the bytes of its manifest, so that the client does
// not wait for the manifest to be parsed.
func (e *Event) EncodePushed(manifest []byte) []byte {
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
		{"tag", e.Tag}, {"userDid", e.UserDID}, {"ownerHandle", e.OwnerHandle}, {"manifestDigest", e.ManifestDigest}, {"operation", e.Operation},
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

// EncodePull returns the same bytes as Encode for the event of a pull, without
// reflection, since a client waits for it.
func (e *Event) EncodePull() []byte {
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
	if e.OwnerHandle != "" {
		b = appendString(append(b, `,"ownerHandle":`...), e.OwnerHandle)
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
			quoted, _ := json.Marshal(s) // strings can always be encoded
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// ErrNewer is returned for an event that a newer program recorded. It is not given up
// but stays pending for that program.
var ErrNewer = errors.New("decode event")

// Decode decodes an event of the journal and filters its manifest, of which it keeps the
// annotations with the given keys. The error wraps ErrNewer if
// a newer program recorded it.
func Decode(b []byte, annotations ...string) (*Event, error) {
	if r, retried, ok := CutRetry(b); ok {
		e, err := Decode(retried, annotations...)
		if e != nil {
			e.Retry, e.Origin = &r, cmp.Or(e.Origin, r.Letter)
		}
		return e, err
	}
	if bytes.HasPrefix(b, []byte(pushedPrefix)) {
		return decodePushed(b, annotations)
	}
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	e.Manifest = FilterManifest(e.Manifest, annotations...)
	return &e, e.checkVersion()
}

// decodePushed decodes what EncodePushed encoded. If the manifest can't be read, the
// event has no layers: it is no error, since the push has happened.
func decodePushed(b []byte, annotations []string) (*Event, error) {
	envelope, manifest, ok := cutManifest(b)
	var e Event
	err := json.Unmarshal(envelope, &e)
	if err == nil && !ok {
		err = errors.New("no manifest")
	}
	if err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	if err := e.checkVersion(); err != nil {
		return nil, err
	}
	e.Manifest, e.Unreadable = ReadManifest(e.MediaType, manifest, annotations...)
	e.Kind = KindOf(&e.Manifest, e.Tag)
	e.Children = ChildrenOf(&e.Manifest)
	return &e, nil
}

// manifestMember begins the last member of an event that EncodePushed encoded.
const manifestMember = `,"manifest":`

// cutManifest separates the manifest from the rest of such an event, so that
// encoding/json limits its depth of nesting as it does in the registry. No member
// before it contains these bytes, since quotes in strings are escaped.
func cutManifest(b []byte) (envelope, manifest []byte, ok bool) {
	before, after, found := bytes.Cut(b, []byte(manifestMember))
	manifest, ok = bytes.CutSuffix(after, []byte{'}'})
	return append(bytes.Clone(before), '}'), manifest, found && ok
}

func (e *Event) checkVersion() error {
	if e.Version > Version && (e.Version != RemovalVersion || e.Operation != OpForgetOwner && e.Operation != OpPurge) {
		return fmt.Errorf("%w: it has version %d and this program supports up to %d; run the newer program that wrote it", ErrNewer, e.Version, Version)
	}
	return nil
}

// StampOf decodes only the stamp of an event.
func StampOf(payload []byte) (Stamp, bool) {
	head := payload[:min(len(payload), 256)]
	_, rest, ok := bytes.Cut(head, []byte(`"time":"`))
	text, _, ended := bytes.Cut(rest, []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return Stamp{at, int64(member(head, `"tid":`)), uint(member(head, `"clockId":`))}, ok && ended && err == nil
}

// member returns the number that follows a member's name, 0 if there is none.
func member(b []byte, name string) uint64 {
	_, rest, _ := bytes.Cut(b, []byte(name))
	end := 0
	for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseUint(string(rest[:end]), 10, 64)
	return n
}

// Stamp is what determines the age of the event.
func (e *Event) Stamp() Stamp { return Stamp{e.Time, e.TID, e.ClockID} }

// ID identifies the event: the TID of its post. It is unique in the journal, and among
// replicas as long as their clock ids differ.
func (e *Event) ID() string { return TID(e.TID, e.ClockID) }

// Name is the name under which the repository is counted, checked for being public,
// and shown. For images of other owners it begins with the owner's DID, as no name of
// this registry's repositories does; for private images it begins with PrivatePrefix.
func (e *Event) Name() string {
	name := e.Repository
	if e.Foreign {
		name = e.UserDID + "/" + e.Repository
	}
	if e.Private() {
		name = PrivatePrefix + name
	}
	return name
}

// OwnedBy is the event with the DID of its owner.
func (e *Event) OwnedBy(did string) *Event {
	owned := *e
	owned.UserDID, owned.OwnerHandle = did, ""
	return &owned
}

// PrivatePrefix begins private names. No repository and no DID begins with it.
const PrivatePrefix = "private:"

// Private reports whether an event reports its manifest as private. A visibility
// that is not known is not public.
func (e *Event) Private() bool {
	return e.Visibility != "" && e.Visibility != lexicon.VisibilityPublic
}

// AsPublic is the event as it would be if it were public.
func (e *Event) AsPublic() *Event {
	public := *e
	public.Visibility = ""
	return &public
}
