package main

import (
	"context"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// resolveTimeout bounds the calls of `account status` to the network.
const resolveTimeout = 20 * time.Second

// accountReport is what `account status` shows.
type accountReport struct {
	DID     string       `json:"did,omitempty"`
	Handle  string       `json:"handle,omitempty"`
	Service string       `json:"service"`
	Host    string       `json:"host,omitempty"`    // of the repo
	Problem string       `json:"problem,omitempty"` // why the identifier cannot be resolved
	Session sessionState `json:"session"`
	Budget  budgetState  `json:"budget"`
	Backlog backlogState `json:"backlog"`
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

// backlogState is what a running server reports of its pending events.
type backlogState struct {
	Running bool                  `json:"running"`
	Reason  string                `json:"reason,omitempty"` // why sinks are missing
	Sinks   []notifier.SinkHealth `json:"sinks,omitempty"`
}

// reportAccount resolves the account, which leaves its session alone, and asks a
// running server.
func reportAccount(ctx context.Context, a *pds.Account, o *config.Options, path string) (accountReport, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	resolved := a.Resolve(ctx)
	s := a.Status()
	r := accountReport{DID: s.DID, Handle: s.Handle, Service: s.Service, Host: s.Host, Session: sessionOf(s.Session), Budget: budgetOf(s.Budget)}
	if resolved != nil {
		r.Problem = resolved.Error()
	}
	var err error
	r.Backlog, err = readBacklog(o, path)
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

// readBacklog asks the server of a configuration, if one is running.
func readBacklog(o *config.Options, path string) (backlogState, error) {
	running, err := cli.IsRunning(o)
	if err != nil || !running {
		return backlogState{Reason: "the registry is not running"}, err
	}
	b := backlogState{Running: true}
	base, err := cli.ServerURL(o, path)
	if err != nil {
		b.Reason = err.Error()
		return b, nil
	}
	token, err := apiToken(o)
	if err != nil {
		return b, err
	}
	if token == "" {
		b.Reason = "the number of pending events needs the option api.token_file"
	}
	var health struct{ Sinks []notifier.SinkHealth }
	if err := cli.GetJSON(base+stats.Prefix+"health", token, &health); err != nil {
		b.Reason = "the registry does not answer: " + err.Error()
		return b, nil
	}
	for _, s := range health.Sinks {
		if s.Sink != sink.Counters { // writes nothing to the account
			b.Sinks = append(b.Sinks, s)
		}
	}
	return b, nil
}

// apiToken returns the token of the API, "" if there is none.
func apiToken(o *config.Options) (string, error) {
	if o.API.TokenFile == "" {
		return "", nil
	}
	content, err := private.ReadFile(o.API.TokenFile)
	return strings.TrimSpace(string(content)), err
}
