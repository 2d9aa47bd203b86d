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

// tracesExporter selects the exporter of spans. Without it the registry sends
// spans to a collector on localhost.
const tracesExporter = "OTEL_TRACES_EXPORTER"

// disableTraces turns tracing off unless tracesExporter is set. The registry
// otherwise encodes every span for its debug log, at any log level, which is a
// quarter of the cost of a pull.
func disableTraces() {
	if exporter, ok := os.LookupEnv(tracesExporter); ok && exporter != "none" {
		return
	}
	os.Setenv(tracesExporter, "none")
	registry.RegisterHandler(func(config *configuration.Configuration, next http.Handler) http.Handler {
		if config.Log.Level == "debug" {
			return next
		}
		// The storage drivers' tracers keep the first provider that is set.
		otel.SetTracerProvider(noop.NewTracerProvider())
		// The registry sets its own provider later, before it listens.
		var once sync.Once
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(stopTraces)
			next.ServeHTTP(w, r)
		})
	})
}

// stopTraces shuts down the registry's tracer provider, with which each request
// would start a span.
func stopTraces() {
	provider := otel.GetTracerProvider()
	otel.SetTracerProvider(noop.NewTracerProvider())
	if p, ok := provider.(interface{ Shutdown(context.Context) error }); ok {
		_ = p.Shutdown(context.Background()) // the remaining spans are not exported
	}
}
