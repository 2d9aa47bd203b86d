package middleware

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/crawl"
)

func TestHealthOfRelays(t *testing.T) {
	t.Parallel()
	current := crawl.RelayStatus{Relay: "a.example", State: crawl.StateCurrent}
	lagging := crawl.RelayStatus{Relay: "b.example", State: crawl.StateLagging, Lag: 90 * time.Minute, Reason: "10.0.0.1 is throttled"}
	unasked := crawl.RelayStatus{Relay: "c.example"}
	for _, c := range []struct {
		relays []crawl.RelayStatus
		all    bool
		want   string
	}{
		{nil, false, `{"status":"ok","sinks":null,"hold":{"status":"ok","did":""}}`},
		{[]crawl.RelayStatus{current, unasked}, false, `{"status":"ok","sinks":null,"hold":{"status":"ok","did":"","relays":[{"relay":"a.example","state":"current"},{"relay":"c.example"}]}}`},
		{[]crawl.RelayStatus{lagging, current}, false, `{"status":"degraded","sinks":null,"hold":{"status":"ok","did":"","relays":[{"relay":"b.example","state":"lagging","lagSeconds":5400},{"relay":"a.example","state":"current"}]}}`},
		{[]crawl.RelayStatus{lagging}, true, `{"status":"degraded","sinks":null,"hold":{"status":"ok","did":"","relays":[{"relay":"b.example","state":"lagging","lagSeconds":5400,"reason":"10.0.0.1 is throttled"}]}}`},
	} {
		h := health{Status: statusOK, Hold: &holdHealth{Status: statusOK}}
		h.addRelays(c.relays, c.all)
		if got, _ := json.Marshal(h); string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
