package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// OpenHold opens the hold of a configuration without the registry. If the options name
// other registries or owners that may notify it, their notifications are recorded,
// counted and published as they are by a registry, and the API shows them; otherwise only
// the account is served. If the options have http.addr it listens there; otherwise the
// caller serves Routes. The caller must call Close.
func OpenHold(host *configuration.Configuration) (*Handler, error) { return open(host, wireHold) }

// Routes returns a handler that serves only our own routes.
func (h *Handler) Routes() http.Handler { return withoutUser(h.routes(http.NotFoundHandler())) }

// Addr returns the address at which the Handler itself listens; empty if our routes are
// served by Wrap or Routes.
func (h *Handler) Addr() string {
	if h.own == nil {
		return ""
	}
	return h.own.addr.String()
}

func wireHold(host *configuration.Configuration) (parts, error) {
	options, _, err := config.FromRegistry(host)
	if err != nil {
		return parts{}, err
	}
	if !options.Enabled || options.Hold == nil {
		return parts{}, fmt.Errorf("the entry %q has no hold to serve", Name)
	}
	r := &runtime{
		options: options,
		host:    host,
		log:     newLog(os.Stderr, host.Log),
		metrics: prometheus.DefaultRegisterer,
		events:  sink.NewMetrics(),
	}
	requests := NewMetrics()
	r.register(requests.Collectors()...)
	opens := []func() error{r.openFolder, r.openRepo, r.openNetwork, r.openServer, r.openHoldAdmin}
	if options.Hold.Notified() {
		r.register(r.events.Collectors()...)
		opens = []func() error{
			r.openFolder, r.openState, r.openJournal, r.openRedis, r.openCounter, r.openHandles, r.openRepo, r.openNetwork, r.openAppView,
			r.openNotifier, r.openStatsRecords, r.openServer, r.openAPI, r.openPages, r.run, r.openAdmin,
		}
	}
	for _, open := range opens {
		if err := open(); err != nil {
			return parts{}, errors.Join(err, r.close(context.Background()))
		}
	}
	return parts{
		mounts:  r.mounts,
		addr:    options.HTTP.Addr,
		proxies: options.HTTP.Clients(),
		log:     r.log,
		metrics: requests,
		close:   r.close,
	}, nil
}
