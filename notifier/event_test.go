package notifier

import (
	"reflect"
	"testing"
)

// FuzzDecodeEvent: what is in a journal can be damaged in ways a checksum does
// not show; decoding it gives an event or an error, and an event keeps its
// meaning when it is written again.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"operation":"push","manifest":{"layers":[{}]}}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEvent(b)
		if err != nil {
			return
		}
		plan(e)
		e.summary()
		again, err := e.encode()
		if err != nil {
			return // a time outside of what JSON can say
		}
		back, err := decodeEvent(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if !reflect.DeepEqual(plan(e), plan(back)) {
			t.Errorf("plan of %s is another the second time", b)
		}
	})
}
