package identity

import (
	"fmt"
	"regexp"
	"strings"
)

// serviceID is the fragment of a DID URL that names a service: the unreserved
// characters of RFC 3986.
var serviceID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

// CheckAudience returns an error unless aud can be the audience of a service token: a DID
// or the ID of a service of it, "did:web:example.com#atcr_hold".
func CheckAudience(aud string) error {
	did, service, found := strings.Cut(aud, "#")
	if err := ValidateDID(did); err != nil {
		return err
	}
	if found && !serviceID.MatchString(service) {
		return fmt.Errorf("%q has an invalid service ID; use one like %q", aud, did+HoldService)
	}
	return nil
}
