package firehose

import (
	"fmt"
	"slices"
	"strconv"
)

// parseCursor reads the cursor parameter; live means that there is none. An
// empty one is none: that is what @atproto/sync sends. Below zero is as good as
// zero: everything that is kept.
func parseCursor(given []string) (cursor uint64, live bool, err error) {
	given = slices.DeleteFunc(given, func(value string) bool { return value == "" })
	if len(given) == 0 {
		return 0, true, nil
	}
	if len(given) > 1 {
		return 0, false, badCursor("given more than once")
	}
	n, err := strconv.ParseInt(given[0], 10, 64)
	if err != nil {
		return 0, false, badCursor(fmt.Sprintf("expected an integer (got %.40q)", given[0]))
	}
	return uint64(max(0, n)), false, nil
}

func badCursor(what string) error {
	return &refusal{"InvalidRequest", "Invalid com.atproto.sync.subscribeRepos params: " + what + " at $.cursor"}
}

// begin puts a new subscriber at its place in the log.
func (s *subscriber) begin(given []string) error {
	cursor, live, err := parseCursor(given)
	if err != nil {
		return err
	}
	if !live {
		now := uint64(s.firehose.cfg.Now().UnixMicro())
		if cursor > max(now, s.firehose.cfg.Log.Head()) {
			return errFutureCursor
		}
		if err := s.rewind(cursor); err != nil {
			return err
		}
	}
	if joined := s.firehose.cfg.Joined; joined != nil {
		joined(live)
	}
	return nil
}

// rewind goes to a cursor, or to the oldest event that is kept. One behind the
// last event, whose time has passed, is of a log that was set back since, or
// invented: what comes next is after it, too.
func (s *subscriber) rewind(cursor uint64) error {
	cursor = min(cursor, s.firehose.cfg.Log.Head())
	lost, err := s.firehose.cfg.Log.Lost()
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	if s.cursor = max(cursor, lost); cursor == s.cursor {
		return nil
	}
	info := infoFrame("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events")
	return s.write(&frame{data: info})
}
