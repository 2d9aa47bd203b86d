package cli

import (
	"errors"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// IsRunning reports whether a server has the data folder open.
func IsRunning(o *config.Options) (bool, error) {
	if !Exists(o.LockFile()) {
		return false, nil
	}
	unlock, err := datafolder.Lock(o.LockFile())
	if errors.Is(err, datafolder.ErrInUse) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unlock()
}
