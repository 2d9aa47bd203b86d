package event

import (
	"reflect"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// The deletion of a tag is counted.
func TestPlanUntag(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	e := &Event{Time: at, NotifyManifestInput: lexicon.NotifyManifestInput{Operation: OpUntag, Repository: "oss/app", Tag: "v1"}}
	want := Plan{Counted: &counts.Fact{Repository: "oss/app", Tag: "v1", Deleted: true, Time: at}}
	if got := PlanOf(e); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
