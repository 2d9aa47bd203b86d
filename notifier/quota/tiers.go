package quota

import (
	"errors"
	"fmt"
)

// MaxTier is the length of a tier's name in bytes: the limit of io.atcr.hold.getQuota.
const MaxTier = 32

// Tiers are the limits of owners.
type Tiers struct {
	Limits  map[string]int64  // bytes by the name of the tier
	Owners  map[string]string // tiers by DID
	Default string            // tier of all other owners; "": they have no limit
}

// None reports whether no owner has a limit.
func (t *Tiers) None() bool { return len(t.Limits) == 0 }

// Of returns the tier of an owner and its limit in bytes; false if there is none.
func (t *Tiers) Of(owner string) (tier string, limit int64, limited bool) {
	tier, ok := t.Owners[owner]
	if !ok {
		tier = t.Default
	}
	limit, limited = t.Limits[tier]
	return tier, limit, limited
}

// CheckTier validates the name of a tier.
func CheckTier(name string) error {
	if name == "" {
		return errors.New("a tier has no name")
	}
	if len(name) > MaxTier {
		return fmt.Errorf("the name has %d bytes; at most %d are allowed", len(name), MaxTier)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' {
			return errors.New("the name has a space or a character that is not printable ASCII")
		}
	}
	return nil
}

// An ExceededError refuses a push that does not fit.
type ExceededError struct {
	Owner, Tier string
	Used        int64 // bytes, with pushes that are not written yet
	Limit       int64 // bytes
	Push        int64 // bytes that the push would add
	Pending     bool  // deletes are pending that may free bytes
}

func (e *ExceededError) Error() string {
	advice := "delete images, or ask the registry's operator for a larger quota"
	if e.Pending {
		advice = "deletes are pending: if they make room for it, push again later"
	}
	return fmt.Sprintf("quota exceeded: %s uses %d of %d bytes (tier %s), and this push adds %d bytes; %s", e.Owner, e.Used, e.Limit, e.Tier, e.Push, advice)
}
