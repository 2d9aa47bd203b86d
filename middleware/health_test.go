package middleware

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/appview"
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
		h := Health{Status: statusOK, Hold: &HoldHealth{Status: statusOK}}
		h.addRelays(c.relays, c.all)
		if got, _ := json.Marshal(h); string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestHealthOfAppView(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status appview.Status
		all    bool
		want   string
	}{
		{appview.Status{AppView: "a.example"}, false, `{"status":"ok","sinks":null,"appview":{"host":"a.example"}}`},
		{appview.Status{AppView: "a.example", State: appview.StateCurrent, Delay: 10 * time.Second}, false,
			`{"status":"ok","sinks":null,"appview":{"host":"a.example","state":"current","delaySeconds":10}}`},
		{appview.Status{AppView: "a.example", State: appview.StateLagging, Missing: 2, Reason: "it lacks 2 posts"}, true,
			`{"status":"degraded","sinks":null,"appview":{"host":"a.example","state":"lagging","missing":2,"reason":"it lacks 2 posts"}}`},
		{appview.Status{AppView: "a.example", State: appview.StateUnreachable, Reason: "10.0.0.1 does not answer"}, false,
			`{"status":"degraded","sinks":null,"appview":{"host":"a.example","state":"unreachable"}}`},
	} {
		h := Health{Status: statusOK}
		h.addAppView(c.status, c.all)
		if got, _ := json.Marshal(h); string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
