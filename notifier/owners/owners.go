// Package owners decides which account a repository's images belong to, and which users
// of the registry may push there. It only compares names: handles are resolved by the
// caller.
package owners

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/handles"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/internal/glob"
)

// Limits of the rules, since each push and each pull is compared with them.
const (
	MaxRules = 100
	MaxGlobs = 300 // in all rules
)

// An Owner is the account that images belong to: a DID, or a handle that has to be
// resolved.
type Owner struct{ DID, Handle string }

func (o Owner) String() string { return o.DID + o.Handle }

// Parse returns the owner that a DID or a handle names.
func Parse(name string) Owner {
	if strings.HasPrefix(name, "did:") {
		return Owner{DID: name}
	}
	return Owner{Handle: name}
}

// Validate returns an error if a name is neither the DID nor the handle of an account.
func Validate(name string) error {
	if strings.HasPrefix(name, "did:") {
		return identity.CheckAccount(name)
	}
	if name == "" {
		return errors.New(`required; use a DID or a handle, like "alice.example.com"`)
	}
	return handles.Validate(name)
}

// ValidateGlob returns an error if a glob matches no repository of this registry.
func ValidateGlob(pattern string) error {
	if strings.HasPrefix(pattern, "did:") {
		return fmt.Errorf("%q is of images that other registries report, which have their owner; remove it", pattern)
	}
	return glob.ValidateRepository(pattern)
}

// A Rule names the owner of repositories: of those that a glob matches or, if
// FirstComponent is set, of those whose first path component is a handle, that handle.
type Rule struct {
	Repositories   []string
	Owner          Owner
	FirstComponent bool
}

func (r *Rule) of(repository string) (Owner, bool) {
	if r.FirstComponent {
		first, _, _ := strings.Cut(repository, "/")
		return Owner{Handle: first}, handles.Validate(first) == nil
	}
	matches := func(pattern string) bool { return glob.MatchRepository(pattern, repository) }
	return r.Owner, slices.ContainsFunc(r.Repositories, matches)
}

// Rules is an ordered list of rules.
type Rules struct {
	List    []Rule
	Default string // DID of the owner of repositories without a rule; "": they have none
}

// Of returns the owner of a repository by the first rule that matches.
func (r *Rules) Of(repository string) Owner {
	for i := range r.List {
		if owner, ok := r.List[i].of(repository); ok {
			return owner
		}
	}
	return Owner{DID: r.Default}
}

// Handles returns the handles that the rules name.
func (r *Rules) Handles() []string {
	var all []string
	for _, rule := range r.List {
		if rule.Owner.Handle != "" {
			all = append(all, rule.Owner.Handle)
		}
	}
	return all
}

// FirstComponent reports whether a rule takes handles from the names of repositories.
func (r *Rules) FirstComponent() bool {
	return slices.ContainsFunc(r.List, func(rule Rule) bool { return rule.FirstComponent })
}

// String identifies the rules without their default; "" if there are none.
func (r *Rules) String() string {
	var b strings.Builder
	for _, rule := range r.List {
		fmt.Fprintf(&b, "%q %s %v\n", rule.Repositories, rule.Owner, rule.FirstComponent)
	}
	return b.String()
}
