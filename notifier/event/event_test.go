package event

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// FuzzDecodeEvent: decoding any bytes returns an event or an error, and an event has the
// same plan after it was encoded and decoded again.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"operation":"push","manifest":{"layers":[{}]}}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		PlanOf(e)
		SizeOf(&e.Manifest)
		PlatformsOf(&e.Manifest)
		again, err := e.Encode()
		if err != nil {
			return // the time is not valid in JSON
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if !reflect.DeepEqual(PlanOf(e), PlanOf(back)) {
			t.Errorf("the plan of %s changes with encoding", b)
		}
	})
}

// FuzzEncodePull: EncodePull returns the same bytes as encode.
func FuzzEncodePull(f *testing.F) {
	f.Add("oss/app", "v1", "did:web:example.com", "pull", "sha256:1,sha256:2", int64(1_700_000_000_123_456_789))
	f.Add("", "", "", "", "", int64(0))
	f.Add("\"\\</a>&\x00\x7f\u2028é\xff", "\n", "\t", "é", ",", int64(-1))
	f.Fuzz(func(t *testing.T, repository, tag, owner, class, children string, nanos int64) {
		e := &Event{
			Version: Version,
			Time:    time.Unix(0, nanos).UTC(),
			Class:   counts.Class(class),
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository:     repository,
				Tag:            tag,
				UserDID:        owner,
				ManifestDigest: "sha256:" + tag,
				Operation:      OpPull,
				Manifest:       lexicon.ManifestInfo{MediaType: class},
			},
		}
		if children != "" {
			e.Children = strings.Split(children, ",")
		}
		want, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := e.EncodePull(); string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// StampOf works for each encoding of an event.
func TestStampOf(t *testing.T) {
	t.Parallel()
	e := Event{Version: Version, Time: time.Now().UTC(), TID: 1753000000123456, ClockID: 77, TIDs: 3, Actor: `"clockId":5,"tid":6`, MediaType: "x"}
	encoded, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pull := Event{Version: Version, Time: e.Time}
	for _, c := range []struct {
		payload []byte
		want    Stamp
	}{{encoded, e.Stamp()}, {e.EncodePushed([]byte("{}")), e.Stamp()}, {pull.EncodePull(), pull.Stamp()}} {
		if got, ok := StampOf(c.payload); !ok || got != c.want {
			t.Errorf("stamp of %s: %+v, %v, want %+v", c.payload, got, ok, c.want)
		}
	}
	if _, ok := StampOf([]byte(`{"v":3}`)); ok {
		t.Error("an event without a time has a stamp")
	}
}

// An event that deletes the data of an owner, or purges a repository, has a version that
// earlier programs leave pending; another event of that version is one of a newer program.
func TestRemovalVersion(t *testing.T) {
	t.Parallel()
	if RemovalVersion <= Version {
		t.Error("a program that supports up to Version would pass over it")
	}
	e := Event{Version: RemovalVersion}
	e.UserDID = "did:plc:a"
	for _, operation := range []string{OpForgetOwner, OpPurge} {
		e.Operation = operation
		encoded, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(encoded); err != nil || got.UserDID != e.UserDID || PlanOf(got).Counted != nil {
			t.Errorf("%s: got %+v, %v", operation, got, err)
		}
	}
	e.Operation = OpPush
	encoded, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(encoded); !errors.Is(err, ErrNewer) {
		t.Errorf("a push of that version: %v", err)
	}
}
