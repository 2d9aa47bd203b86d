package auth

import "fmt"

// Pulls says which accounts may report pulls.
type Pulls string

const (
	PullsTrusted Pulls = "trusted" // the configured ones
	PullsAnyone  Pulls = "anyone"  // each with a valid token
)

// Check returns an error if p is invalid.
func (p Pulls) Check() error {
	if p != PullsTrusted && p != PullsAnyone {
		return fmt.Errorf("%q is neither %q nor %q", string(p), PullsTrusted, PullsAnyone)
	}
	return nil
}
