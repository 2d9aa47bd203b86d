package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// StoppedHost loads the configuration of a registry, and returns an error if a server is using
// its data folder. Whoever opens the folder afterwards locks it.
func StoppedHost(o *config.Options, args []string) (*configuration.Configuration, error) {
	unlock, err := LockData(o)
	if err != nil {
		return nil, err
	}
	if err := unlock(); err != nil {
		return nil, err
	}
	host, _, err := Load(args)
	return host, err
}

// LockData locks the data folder, which must exist.
func LockData(o *config.Options) (unlock func() error, err error) {
	if _, err := os.Stat(o.Data); err != nil {
		return nil, fmt.Errorf("%w; create the account with `tidings hold init`", err)
	}
	unlock, err = datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return nil, fmt.Errorf("a server is using the data folder %s: stop it first", o.Data)
	}
	return unlock, err
}
