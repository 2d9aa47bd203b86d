// Plain is the upstream registry, built with the dependencies of this module and
// without Tidings. The benchmark compares with it.
package main

import (
	"os"

	_ "net/http/pprof"

	"github.com/distribution/distribution/v3/registry"

	_ "github.com/tidings-dev/tidings/internal/drivers"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
