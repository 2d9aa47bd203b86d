// Command tidings is the CNCF distribution registry with Tidings built in. It
// has distribution's commands, drivers and behaviour, and a configuration file
// without a tidings entry runs as it does there. Ours are `config check`,
// `reconcile`, `version`, and those under `hold` and `redis`; `garbage-collect`
// tells Tidings what it deletes.
package main

import (
	"context"
	"errors"
	_ "net/http/pprof"
	"os"
	"time"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/silly"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/proxy"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/azure"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/gcs"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/cloudfront"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/redirect"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/rewrite"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
	"github.com/sirupsen/logrus"

	"github.com/tidings-dev/tidings/middleware"
)

// closing is how long what is held may take to finish when the registry has
// stopped. Whatever is cut off is done at the next start.
const closing = 10 * time.Second

func main() {
	noTracesUnlessAsked()
	root := registry.RootCmd
	root.Use = "tidings"
	root.Short = "A registry that tells the AT Protocol network what is pushed to it"
	root.Long = root.Short + ", and counts what is pulled from it."
	versionFlag(root)
	registry.ServeCmd.PreRunE = checkBeforeServing
	noteCollected(registry.GCCmd)
	root.AddCommand(versionCommand(), configCommand(), holdCommand(), redisCommand(), reconcileCommand())

	// The registry ends the process itself when draining takes too long.
	logrus.RegisterExitHandler(func() { shutdown() })
	err := root.Execute()
	switch closed := shutdown(); {
	case errors.Is(err, errDamaged), errors.Is(err, errDiffers):
		os.Exit(2)
	case !closed || err != nil:
		os.Exit(1)
	}
}

// shutdown closes what the registry opened for us, and says whether it could.
func shutdown() bool {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	if err := middleware.Shutdown(ctx); err != nil {
		logrus.Errorln("tidings: close:", err)
		return false
	}
	return true
}
