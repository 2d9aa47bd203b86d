package faultproxy

import (
	"fmt"
	"time"
)

// A Kind is a way in which a call fails.
type Kind int

const (
	// Cut closes the connection without a response.
	Cut Kind = iota
	// Truncate closes the connection after the first half of the response. Without
	// Delivered there is no response to truncate, and it is a Cut.
	Truncate
	// Delay holds the call, or with Delivered its response, for Fault.For.
	Delay
	// BadGateway responds with status 502 and an HTML page.
	BadGateway
	// HTML responds with status 200 and an HTML page.
	HTML
	// Endless responds with status 200 and a JSON body that never ends.
	Endless
	// RateLimit responds with status 429 and no header that says how long to wait.
	RateLimit
	// RetryAfter responds with status 429 and a Retry-After header of Fault.For.
	RetryAfter
	// RateLimitReset responds with status 429 and the RateLimit headers of a PDS, which
	// end the limit after Fault.For.
	RateLimitReset
)

var kindNames = [...]string{
	"cut", "truncated response", "delay", "502", "HTML page", "endless response",
	"429", "429 with Retry-After", "429 with RateLimit-Reset",
}

func (k Kind) String() string { return kindNames[k] }

// Delivers reports whether a fault of this kind can have Delivered set: a server that
// responds 429 has not applied the call.
func (k Kind) Delivers() bool { return k < RateLimit }

// A Fault describes which calls fail, and how.
type Fault struct {
	Kind      Kind
	Delivered bool          // the target receives the call and responds; the response is lost
	Method    string        // the NSID of the calls that fail; "": all
	For       time.Duration // of Delay, RetryAfter and RateLimitReset, which are precise to a second
}

func (f Fault) String() string {
	text := f.Kind.String()
	if f.For > 0 {
		text += fmt.Sprintf(" of %s", f.For)
	}
	if f.Kind.Delivers() {
		if f.Delivered {
			text += " after delivery"
		} else {
			text += " before delivery"
		}
	}
	if f.Method != "" {
		text += ", only " + f.Method
	}
	return text
}
