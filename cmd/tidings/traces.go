package main

import (
	"context"
	"net/http"
	"os"
	"sync"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"
)

// tracesExporter says where spans go. Without it the registry calls for a
// collector on localhost.
const tracesExporter = "OTEL_TRACES_EXPORTER"

// noTracesUnlessAsked keeps the registry from making traces that nobody asked
// for. It otherwise encodes every span for its debug log, whatever the level of
// the log, which is a quarter of what a pull costs.
func noTracesUnlessAsked() {
	if asked, set := os.LookupEnv(tracesExporter); set && asked != "none" {
		return
	}
	os.Setenv(tracesExporter, "none")
	registry.RegisterHandler(func(config *configuration.Configuration, next http.Handler) http.Handler {
		if config.Log.Level == "debug" {
			return next
		}
		// The storage drivers' tracers stay with the first provider there is.
		otel.SetTracerProvider(noop.NewTracerProvider())
		// The registry sets up its own after this, and before it listens.
		var once sync.Once
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(stopTraces)
			next.ServeHTTP(w, r)
		})
	})
}

// stopTraces puts away the registry's tracer, from which each request would
// begin a span.
func stopTraces() {
	theirs := otel.GetTracerProvider()
	otel.SetTracerProvider(noop.NewTracerProvider())
	if provider, ok := theirs.(interface{ Shutdown(context.Context) error }); ok {
		_ = provider.Shutdown(context.Background()) // of spans that nobody reads
	}
}
