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
)

// A blank import is all that a registry binary needs.
func init() {
	registry.RegisterHandler(func(config *configuration.Configuration, next http.Handler) http.Handler {
		return attach(config, next, wire, logrus.Fatalln)
	})
	if err := repositorymiddleware.Register(Name, wrapRepository); err != nil {
		panic(err)
	}
}

// attach opens and wraps a registry whose configuration has our entry, and
// leaves any other exactly alone. The host starts in spite of a middleware
// that cannot, and then answers 500 to everything; so an error ends the
// process here, before it listens.
func attach(config *configuration.Configuration, next http.Handler, wire func(*configuration.Configuration) (parts, error), fatal func(...any)) http.Handler {
	if entryOf(config) == nil {
		return next
	}
	h := handlerOf(config)
	if h == nil {
		var err error
		if h, err = open(config, wire); err != nil {
			fatal("tidings:", err)
			return next
		}
	}
	return h.Wrap(next)
}

var errNotOpen = errors.New("tidings is not open for this configuration: blank-import github.com/tidings-dev/tidings/middleware " +
	"and serve through the registry package, or call middleware.Open with the app's configuration and wrap the app with Handler.Wrap")

// wrapRepository is what the host calls for every request that names a
// repository, so it only finds what is open already. ctx is the app, not the
// request.
func wrapRepository(ctx context.Context, inner distribution.Repository, _ map[string]any) (distribution.Repository, error) {
	a, ok := ctx.(*app.App)
	if !ok {
		return nil, errors.New("tidings runs only inside a registry's handlers.App")
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
