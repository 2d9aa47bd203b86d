package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// quotaError is the registry's error for a push that does not fit into its owner's quota: a
// 403. Other errors are unchanged.
func quotaError(err error) error {
	var exceeded *quota.ExceededError
	if !errors.As(err, &exceeded) {
		return err
	}
	return errcode.ErrorCodeDenied.WithMessage(exceeded.Error()).WithDetail(map[string]int64{
		"used": exceeded.Used, "limit": exceeded.Limit, "push": exceeded.Push,
	})
}

// OwnerUsage is the usage of an owner, and the owner's limit.
type OwnerUsage struct {
	Owner string `json:"owner"`
	usage.Total
	Limit *int64 `json:"limit,omitempty"` // bytes; nil: no limit
	Tier  string `json:"tier,omitempty"`
}

// Usage calls visit with the usage of one owner of a stopped registry or, if owner is "", of each
// owner that has layers.
func Usage(host *configuration.Configuration, owner string, visit func(OwnerUsage) error) (err error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return err
	}
	if !found || !options.Enabled {
		return fmt.Errorf("the configuration has no entry %q that is enabled", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(os.Stderr, host.Log)}
	defer func() { err = errors.Join(err, r.close(context.Background())) }()
	for _, open := range []func() error{r.openFolder, r.openState} {
		if err := open(); err != nil {
			return err
		}
	}
	tiers, table := options.QuotaTiers(), usage.New(state.OnPebble(r.state))
	withLimit := func(owner string, total usage.Total) error {
		u := OwnerUsage{Owner: owner, Total: total}
		if tier, limit, limited := tiers.Of(owner); limited {
			u.Limit, u.Tier = &limit, tier
		}
		return visit(u)
	}
	if owner == "" {
		return table.Owners(withLimit)
	}
	total, err := table.Total(owner)
	if err != nil {
		return err
	}
	return withLimit(owner, total)
}

// RecountUsage counts the usage of all owners of a stopped registry again, from the ledger
// and the account's records, corrects it unless dryRun is set, and calls visit with each
// difference, and progress with the number of manifests counted.
func RecountUsage(ctx context.Context, host *configuration.Configuration, dryRun bool, log io.Writer, progress func(manifests int64), visit func(usage.Difference) error) (err error) {
	options, found, err := config.FromRegistry(host)
	if err != nil {
		return err
	}
	if !found || !options.Enabled || options.Hold == nil && options.Account == nil {
		return fmt.Errorf("the entry %q has no account, so there are no records", Name)
	}
	r := &runtime{options: options, host: host, log: newLog(log, host.Log), metrics: prometheus.NewRegistry(), events: sink.NewMetrics()}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	account := r.openRepo
	if options.Account != nil {
		account = r.openPDS
	}
	for _, open := range []func() error{r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, account, r.openNotifier} {
		if err := open(); err != nil {
			return err
		}
	}
	return r.notifier.Stores().RecountUsage(ctx, dryRun, progress, visit)
}
