package remote

import "time"

// Keys says whether a hold honors the Idempotency-Key of a call. A hold of Tidings does,
// and says so: its answers repeat the key in the same header. The published schema does
// not mention the header, and a hold that does not know it ignores it.
type Keys int

const (
	KeysUnknown Keys = iota // no answer since the start
	KeysHonored
	KeysIgnored
)

func (k Keys) String() string { return [...]string{"unknown", "honored", "ignored"}[k] }

// Status is what an operator wants to know of the hold.
type Status struct {
	Hold     string // DID
	Endpoint string // URL; "": not resolved yet
	Audience string // that the hold accepts in tokens; "": not known yet
	Keys     Keys
	Until    time.Time // no calls are made before; zero: it takes calls
	Answered time.Time // last successful call; zero: none since the start
	Error    error     // of the last call, if it failed for a reason that concerns the whole hold; nil: it did not
	ErrorAt  time.Time
}

// Status returns what is known without a call.
func (h *Hold) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{Hold: h.cfg.Hold, Audience: h.audience, Keys: h.keys, Answered: h.answered}
	if h.at != nil {
		s.Endpoint = h.at.endpoint.String()
	}
	if h.last != nil {
		s.Error, s.ErrorAt = h.last, h.lastAt
	}
	if h.cfg.Now().Before(h.until) {
		s.Until = h.until
	}
	return s
}
