package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// StoppedHost loads the configuration of a registry, and returns an error if a server is using
// its data folder. The caller opens the folder, which locks it.
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
	if err := CheckFolder(o); err != nil {
		return nil, err
	}
	return LockNewData(o)
}

// LockNewData is LockData for a data folder that is created if it is missing.
func LockNewData(o *config.Options) (unlock func() error, err error) {
	unlock, err = datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return nil, fmt.Errorf("a server is using the data folder %s: stop it first", o.Data)
	}
	return unlock, err
}

// CheckFolder returns an error if the data folder does not exist, or is a file.
func CheckFolder(o *config.Options) error {
	info, err := os.Stat(o.Data)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("options.data: %s is not a folder", o.Data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	creator := "the first start of the registry"
	if o.Hold != nil {
		creator = "`tidings hold init`"
	}
	return fmt.Errorf("the data folder %s does not exist; %s creates it", o.Data, creator)
}
