package middleware_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/middleware"
)

// A program that creates its own handlers.App opens a Handler for the app's
// configuration and wraps the app with it. The Handler is closed last, when no
// requests are running.
func ExampleOpen() {
	data, err := os.MkdirTemp("", "tidings")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(data)
	config := parse(`
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {inmemory: {}}
middleware:
  repository:
    - name: tidings
      options: {data: ` + data + `, reserve: 1MiB}
`)

	handler, err := middleware.Open(config)
	if err != nil {
		log.Fatal(err)
	}
	app := handlers.NewApp(context.Background(), config)
	server := httptest.NewServer(handler.Wrap(app))

	fmt.Println("registry:", get(server.URL+"/v2/"))
	var health struct{ Status string }
	if err := json.Unmarshal([]byte(get(server.URL+"/tidings/api/v1/health")), &health); err != nil {
		log.Fatal(err)
	}
	fmt.Println("tidings:", health.Status)

	server.Close()
	if err := app.Shutdown(); err != nil {
		log.Fatal(err)
	}
	if err := handler.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// registry: {}
	// tidings: ok
}

// A main function closes the Handler that the blank import has opened after
// ListenAndServe has returned.
func ExampleShutdown() {
	r, err := registry.NewRegistry(context.Background(), parse(registryYAML))
	if err != nil {
		log.Fatal(err)
	}
	failed := r.ListenAndServe()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := middleware.Shutdown(ctx); err != nil {
		log.Print(err)
	}
	if failed != nil {
		log.Fatal(failed)
	}
}

// A hold can be served without a registry, for example while the registry is being
// repaired.
func ExampleOpenHold() {
	data, err := os.MkdirTemp("", "tidings")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(data)
	_, err = hold.Init(hold.InitConfig{
		Dir:      filepath.Join(data, "hold"),
		KeyFile:  filepath.Join(data, "hold.key"),
		Hostname: "localhost:5000",
		Reserve:  1 << 20,
	})
	if err != nil {
		log.Fatal(err)
	}
	config := parse(`
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {inmemory: {}}
middleware:
  repository:
    - name: tidings
      options: {data: ` + data + `, hold: {hostname: "localhost:5000", reserve: 1MiB}}
`)

	handler, err := middleware.OpenHold(config)
	if err != nil {
		log.Fatal(err)
	}
	defer handler.Close(context.Background())
	server := httptest.NewServer(handler.Routes())
	defer server.Close()
	fmt.Println(get(server.URL + "/.well-known/atproto-did"))
	// Output: did:web:localhost%3A5000
}

func parse(yaml string) *configuration.Configuration {
	config, err := configuration.Parse(strings.NewReader(yaml))
	if err != nil {
		log.Fatal(err)
	}
	return config
}

func get(url string) string {
	response, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	return string(body)
}
