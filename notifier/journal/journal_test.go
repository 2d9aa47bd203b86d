package journal_test

import (
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

func TestJournal(t *testing.T) {
	t.Run("operating system", func(t *testing.T) { journaltest.Run(t, journal.Open) })
	t.Run("disk in memory", func(t *testing.T) {
		disk := journaltest.NewDisk()
		journaltest.Run(t, func(cfg journal.Config) (*journal.Journal, error) {
			cfg.FS = disk
			return journal.Open(cfg)
		})
	})
}
