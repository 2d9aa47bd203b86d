package accountcmd

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
)

// resolveTimeout bounds the calls of `account status` to the network.
const resolveTimeout = 20 * time.Second

// Report is what `account status` shows.
type Report struct {
	DID     string       `json:"did,omitempty"`
	Handle  string       `json:"handle,omitempty"`
	Service string       `json:"service"`
	Host    string       `json:"host,omitempty"`    // of the repo
	Problem string       `json:"problem,omitempty"` // why the identifier cannot be resolved
	Session sessionState `json:"session"`
	Budget  budgetState  `json:"budget"`
	Backlog cli.Backlog  `json:"backlog"`
}

type sessionState struct {
	LoggedIn bool         `json:"loggedIn"`
	Until    time.Time    `json:"until,omitzero"` // when it ends, unless it is used before
	Refused  int          `json:"refusedPasswords,omitempty"`
	Logins   []loginState `json:"logins"`
}

type loginState struct {
	Seconds int `json:"windowSeconds"`
	Used    int `json:"used"`
	Limit   int `json:"limit"`
}

type budgetState struct {
	Hour  *pointState `json:"hour,omitempty"` // missing: no limit
	Day   *pointState `json:"day,omitempty"`
	Until time.Time   `json:"until,omitzero"` // the service wants no writes before
}

type pointState struct {
	Left  int `json:"left"`
	Limit int `json:"limit"`
}

// reportAccount resolves the account, which leaves its session alone, and asks a
// running server.
func reportAccount(ctx context.Context, a *pds.Account, o *config.Options) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	resolved := a.Resolve(ctx)
	s := a.Status()
	r := Report{DID: s.DID, Handle: s.Handle, Service: s.Service, Host: s.Host, Session: sessionOf(s.Session), Budget: budgetOf(s.Budget)}
	if resolved != nil {
		r.Problem = resolved.Error()
	}
	var err error
	r.Backlog, err = cli.ReadBacklog(ctx, o)
	return r, err
}

func sessionOf(s pds.SessionStatus) sessionState {
	state := sessionState{LoggedIn: s.LoggedIn, Until: s.Until.UTC(), Refused: s.Refused}
	for _, l := range s.Logins {
		state.Logins = append(state.Logins, loginState{int(l.Window.Seconds()), l.Used, l.Most})
	}
	return state
}

func budgetOf(b pds.BudgetStatus) budgetState {
	state := budgetState{Until: b.Until.UTC()}
	if b.HourLimit > 0 {
		state.Hour = &pointState{b.HourLeft, b.HourLimit}
	}
	if b.DayLimit > 0 {
		state.Day = &pointState{b.DayLeft, b.DayLimit}
	}
	return state
}
