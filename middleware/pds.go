package middleware

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// resolveTimeout limits how long the first start waits for the DID of an account.
const resolveTimeout = 15 * time.Second

// openPDS opens the account on another PDS that records and posts are written to. An
// account that cannot be written pauses the sinks.
func (r *runtime) openPDS() error {
	account, err := r.resolvedAccount("options.account", r.options.PDS())
	if err != nil {
		return err
	}
	r.pds, r.account = account, account.DID()
	r.writes, r.urgent = account.At(pds.Normal), account.At(pds.Urgent)
	return nil
}

// accountFolderID identifies the repo of the account: the folder of an embedded one.
func (r *runtime) accountFolderID() string {
	if r.pds != nil {
		return "account " + r.account
	}
	return datafolder.ID(r.options.HoldDir())
}

// pdsCollector collects the metrics of an account on another PDS.
type pdsCollector struct {
	account *pds.Account
	pending func() int // writes that the pending events need
}

var (
	pointsLeftDesc  = prometheus.NewDesc("tidings_account_points_left", "Points that writes to the account may cost in a window that ends now.", []string{"window"}, nil)
	pointsLimitDesc = prometheus.NewDesc("tidings_account_points_limit", "Points that writes to the account may cost in a window.", []string{"window"}, nil)
	backlogDesc     = prometheus.NewDesc("tidings_account_backlog_seconds", "Time until the pending events are published, as far as the points decide; at most 30 days are forecast.", nil, nil)
)

func (c pdsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- pointsLeftDesc
	ch <- pointsLimitDesc
	ch <- backlogDesc
}

func (c pdsCollector) Collect(ch chan<- prometheus.Metric) {
	b := c.account.Status().Budget
	for _, w := range []struct {
		name        string
		left, limit int
	}{{"hour", b.HourLeft, b.HourLimit}, {"day", b.DayLeft, b.DayLimit}} {
		if w.limit == 0 {
			continue // no limit
		}
		ch <- prometheus.MustNewConstMetric(pointsLeftDesc, prometheus.GaugeValue, float64(w.left), w.name)
		ch <- prometheus.MustNewConstMetric(pointsLimitDesc, prometheus.GaugeValue, float64(w.limit), w.name)
	}
	ch <- prometheus.MustNewConstMetric(backlogDesc, prometheus.GaugeValue, c.backlog().Seconds())
}

// backlog is how long the points make the pending events wait.
func (c pdsCollector) backlog() time.Duration {
	pending := c.pending()
	if pending == 0 {
		return 0
	}
	return max(0, c.account.Forecast(pds.CreatePoints*pending).Sub(clock.Now()))
}

// AccountHealth is the state of an account on another PDS.
type AccountHealth struct {
	Status  string `json:"status"` // "ok" or "paused"
	DID     string `json:"did"`
	Service string `json:"service"`
	// Only with the token:
	Budget  *BudgetHealth  `json:"budget,omitempty"`
	Backlog *BacklogHealth `json:"backlog,omitempty"` // missing if no event is pending
}

// BudgetHealth has the points that are left. A window without a limit is missing.
type BudgetHealth struct {
	Hour  *PointsHealth `json:"hour,omitempty"`
	Day   *PointsHealth `json:"day,omitempty"`
	Until time.Time     `json:"until,omitzero"` // no writes before, since the service asked to wait
}

// BacklogHealth estimates when the pending events are published.
type BacklogHealth struct {
	Writes int       `json:"writes"`
	Ends   time.Time `json:"ends,omitzero"` // as far as the budget decides; missing while the account cannot be written
}

// PointsHealth has the points of a window that are left.
type PointsHealth struct {
	Left  int `json:"left"`
	Limit int `json:"limit"`
}

// addAccount adds the state of the account. An account that cannot be written degrades the
// health; one whose points are spent does not.
func (h *Health) addAccount(account *pds.Account, pending int, all bool) {
	s := account.Status()
	h.Account = &AccountHealth{Status: statusOK, DID: s.DID, Service: s.Service}
	suspended := false
	for _, sink := range h.Sinks {
		if sink.Paused() {
			h.Account.Status = "paused"
		}
		if sink.Suspended() {
			h.Status, suspended = statusDegraded, true
		}
	}
	if !all {
		return
	}
	h.Account.Budget = &BudgetHealth{Until: s.Budget.Until}
	if s.Budget.HourLimit > 0 {
		h.Account.Budget.Hour = &PointsHealth{s.Budget.HourLeft, s.Budget.HourLimit}
	}
	if pending > 0 {
		h.Account.Backlog = &BacklogHealth{Writes: pending}
		if !suspended {
			h.Account.Backlog.Ends = account.Forecast(pds.CreatePoints * pending)
		}
	}
	if s.Budget.DayLimit > 0 {
		h.Account.Budget.Day = &PointsHealth{s.Budget.DayLeft, s.Budget.DayLimit}
	}
}
