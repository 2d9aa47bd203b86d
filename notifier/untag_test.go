package notifier

import (
	"reflect"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counter"
)

// The counters hear that a tag was deleted.
func TestPlanOfAnUntag(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	e := &Event{Time: at, NotifyManifestInput: lexicon.NotifyManifestInput{Operation: opUntag, Repository: "oss/app", Tag: "v1"}}
	want := Plan{Counted: &counter.Fact{Repository: "oss/app", Tag: "v1", Deleted: true, Time: at}}
	if got := plan(e); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
