package middleware_test

import (
	"context"
	"log"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"

	_ "github.com/tidings-dev/tidings/middleware" // registers the middleware "tidings"
)

const registryYAML = `
version: 0.1
storage:
  filesystem: {rootdirectory: /var/lib/registry}
http: {addr: ":5000"}
middleware:
  repository:
    - name: tidings
      options:
        data: /var/lib/tidings
        public: ["oss/**"]
`

// A registry that is served by the registry package needs only a blank import of this
// package and an entry in its configuration.
func Example() {
	config, err := configuration.Parse(strings.NewReader(registryYAML))
	if err != nil {
		log.Fatal(err)
	}
	r, err := registry.NewRegistry(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(r.ListenAndServe())
}
