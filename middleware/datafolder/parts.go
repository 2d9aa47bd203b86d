package datafolder

import "github.com/tidings-dev/tidings/config"

// Parts are the folders of a data folder that are backed up.
func Parts(o *config.Options) []string {
	return []string{o.CollectedDir(), o.JournalDir(), o.StateDir(), o.HoldDir()}
}
