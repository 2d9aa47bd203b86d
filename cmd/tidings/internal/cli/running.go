package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
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

// DecodeHealth returns the health report in a status; it is empty while the data folder cannot
// be opened.
func DecodeHealth(s *admin.Status) (h middleware.Health, err error) {
	if len(s.Health) == 0 {
		return h, nil
	}
	if err := json.Unmarshal(s.Health, &h); err != nil {
		return h, fmt.Errorf("decode the health report: %w", err)
	}
	return h, nil
}
