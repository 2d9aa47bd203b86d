package pds

import "testing"

// What is public of an account that cannot write has no text of the service.
func TestReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  Error
		want string
	}{
		"an error name":    {Error{Outcome: Suspended, Name: "AccountTakedown", Message: "at 10.0.0.1"}, reasonTakenDown},
		"an unknown name":  {Error{Outcome: Suspended, Name: "AuthMissing", Message: "at 10.0.0.1"}, ""},
		"our own reason":   {Error{Outcome: Suspended, Name: "AccountTakedown", reason: reasonPassword}, reasonPassword},
		"it can write":     {Error{Outcome: Unknown, reason: reasonIdentity}, ""},
		"points are spent": {Error{Outcome: Limited, Name: "RateLimitExceeded"}, ""},
	} {
		if got := c.err.Reason(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
