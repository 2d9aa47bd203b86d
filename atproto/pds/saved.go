package pds

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tidings-dev/tidings/internal/private"
)

// maxSaved is more than the tokens, the logins and the points of a day take, in bytes.
const maxSaved = 256 << 10

// savedFormat is the format number of the file; a newer one is refused.
const savedFormat = 1

// saved is what an Account keeps in its file, which only its owner may read.
// It is written before the call that it accounts for is made: a crash loop logs
// in no more often, and spends no more points, than one process would.
type saved struct {
	Format     int         `json:"format"`
	Service    string      `json:"service"`
	Identifier string      `json:"identifier"`
	DID        string      `json:"did,omitempty"` // that the identifier was resolved to; never another one again
	Session    *session    `json:"session,omitempty"`
	Logins     []time.Time `json:"logins,omitempty"`  // of the last day, oldest first
	Refused    *refusedKey `json:"refused,omitempty"` // the password that the service refused
	Points     []spent     `json:"points,omitempty"`  // of the last day, oldest first
	Until      time.Time   `json:"until,omitzero"`    // no writes before: the service said so
}

// A session is what createSession and refreshSession give.
type session struct {
	DID     string `json:"did"`
	Access  string `json:"accessJwt"`
	Refresh string `json:"refreshJwt"`
}

// load reads the file. One of another service or identifier is not used: only its
// logins count on, for a service that stays the same.
func (a *Account) load() error {
	a.saved = saved{Format: savedFormat, Service: a.service.String(), Identifier: a.cfg.Identifier}
	content, err := private.ReadLimited(a.cfg.File, maxSaved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	var s saved
	if err := json.Unmarshal(content, &s); err != nil {
		return fmt.Errorf("read session: %s is damaged, delete it to log in anew: %w", a.cfg.File, err)
	}
	if s.Format > savedFormat {
		return fmt.Errorf("read session: %s has format %d and this program knows up to %d", a.cfg.File, s.Format, savedFormat)
	}
	if s.Service == a.saved.Service && s.Identifier == a.saved.Identifier {
		a.saved = s
		a.saved.Format = savedFormat
	}
	return nil
}

// errReadOnly means that another process may be using the file.
var errReadOnly = errors.New("the session is only read")

// save writes the file durably. The caller must hold mu.
func (a *Account) save() error {
	if a.cfg.ReadOnly {
		return errReadOnly
	}
	content, err := json.Marshal(a.saved)
	if err != nil {
		return err
	}
	if err := private.ReplaceFile(a.cfg.File, content); err != nil {
		return fmt.Errorf("write session: %w", err)
	}
	return nil
}
