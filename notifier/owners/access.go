package owners

import (
	"errors"
	"fmt"
)

// ErrUnresolved is returned while the handle of an owner is not known to belong to a DID.
var ErrUnresolved = errors.New("unresolved handle")

// A UserMismatch is returned if an actor is not the owner of a repository.
type UserMismatch struct {
	Repository string
	Owner      Owner  // Handle, DID or both
	Actor      string // user of the registry; "": anonymous
	Account    string // DID that the actor is mapped to; "": none
}

func (e *UserMismatch) Error() string {
	owner := e.Owner.DID
	switch {
	case e.Owner.Handle != "" && owner != "":
		owner = e.Owner.Handle + " (" + owner + ")"
	case owner == "":
		owner = e.Owner.Handle
	}
	who := fmt.Sprintf("the user %s is mapped to %s", e.Actor, e.Account)
	switch {
	case e.Actor == "":
		who = "the push is anonymous"
	case e.Account == "":
		who = fmt.Sprintf("the user %s is mapped to no account", e.Actor)
	}
	return fmt.Sprintf("UserMismatch: the repository %s belongs to %s, and %s", e.Repository, owner, who)
}

// Access decides who may push to a repository: only its owner.
type Access struct {
	Rules    *Rules
	Accounts map[string]string // DIDs by user of the registry
	// Resolved returns the DID of a handle if it is known, without waiting.
	Resolved func(handle string) (did string, known bool)
}

// Check returns a *UserMismatch if an actor is not the owner of a repository, and
// ErrUnresolved if that is not known yet.
func (a *Access) Check(repository, actor string) error {
	owner := a.Rules.Of(repository)
	mismatch := &UserMismatch{repository, owner, actor, a.Accounts[actor]}
	if actor == "" || mismatch.Account == "" {
		mismatch.Account = ""
		return mismatch
	}
	if owner.Handle != "" {
		did, known := a.Resolved(owner.Handle)
		if !known {
			return fmt.Errorf("%w %s", ErrUnresolved, owner.Handle)
		}
		mismatch.Owner.DID = did
	}
	if mismatch.Owner.DID != mismatch.Account {
		return mismatch
	}
	return nil
}
