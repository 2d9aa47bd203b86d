package middleware

import (
	"io"
	"net/http"
)

// Paths of the probes of an orchestrator such as Kubernetes.
const (
	livePath  = "/tidings/live"  // 200 as long as the process serves requests
	readyPath = "/tidings/ready" // 503 while pushes would be refused; what sinks do does not matter
)

// probes returns the mounts of the probes, which must come before those of the folder that
// they are in.
func probes(ready func() bool) []mount {
	return []mount{{livePath, probe(func() bool { return true })}, {readyPath, probe(ready)}}
}

func probe(ok func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status, text := http.StatusOK, "ok\n"
		if !ok() {
			status, text = http.StatusServiceUnavailable, "pushes are refused\n"
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
}
