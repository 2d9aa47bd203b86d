package middleware

import (
	"context"
	"errors"
	"net/http"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	app "github.com/distribution/distribution/v3/registry/handlers"
	repositorymiddleware "github.com/distribution/distribution/v3/registry/middleware/repository"
	"github.com/sirupsen/logrus"

	"github.com/tidings-dev/tidings/config"
)

// init registers the plugin, so that a registry binary needs only a blank import.
func init() {
	registry.RegisterHandler(func(host *configuration.Configuration, next http.Handler) http.Handler {
		return attach(host, next, wire, logrus.Fatalln)
	})
	if err := repositorymiddleware.Register(Name, wrapRepository); err != nil {
		panic(err)
	}
}

// attach wraps a registry whose configuration has our entry in its Handler, which it
// opens if necessary, and returns any other registry unchanged. An error ends the
// process before it listens: the host would start anyway, and answer all requests
// with 500.
func attach(host *configuration.Configuration, next http.Handler, wire func(*configuration.Configuration) (parts, error), fatal func(...any)) http.Handler {
	if entry, err := config.Entry(host); entry == nil && err == nil {
		return next
	}
	h := handlerOf(host)
	if h == nil {
		var err error
		if h, err = open(host, wire); err != nil {
			fatal("tidings:", err)
			return next
		}
	}
	return h.Wrap(next)
}

var errNotOpen = errors.New("tidings is not open for this configuration: blank-import github.com/tidings-dev/tidings/middleware " +
	"and serve through the registry package, or call middleware.Open with the app's configuration and wrap the app with Handler.Wrap")

// wrapRepository is called by the host for each request that names a repository, so it
// only looks up the open Handler. ctx is the app, not the request's context.
func wrapRepository(ctx context.Context, inner distribution.Repository, _ map[string]any) (distribution.Repository, error) {
	a, ok := ctx.(*app.App)
	if !ok {
		return nil, errors.New("tidings requires a registry's handlers.App")
	}
	h := handlerOf(a.Config)
	if h == nil {
		return nil, errNotOpen
	}
	if h.observer == nil {
		return inner, nil
	}
	return h.observer.Repository(inner), nil
}
