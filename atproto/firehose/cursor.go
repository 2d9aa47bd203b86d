package firehose

import (
	"fmt"
	"slices"
	"strconv"
)

// parseCursor parses the values of the cursor parameter; live means that there is no
// cursor. @atproto/sync sends an empty value for no cursor. A negative cursor is 0.
func parseCursor(values []string) (cursor uint64, live bool, err error) {
	values = slices.DeleteFunc(values, func(value string) bool { return value == "" })
	if len(values) == 0 {
		return 0, true, nil
	}
	if len(values) > 1 {
		return 0, false, badCursor("given more than once")
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return 0, false, badCursor(fmt.Sprintf("expected an integer (got %.40q)", values[0]))
	}
	return uint64(max(0, n)), false, nil
}

func badCursor(what string) error {
	return &refusal{"InvalidRequest", "Invalid com.atproto.sync.subscribeRepos params: " + what + " at $.cursor"}
}

// begin sets the cursor of a new subscriber.
func (s *subscriber) begin(values []string) error {
	cursor, live, err := parseCursor(values)
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

// rewind sets the cursor, to the oldest kept event if that is later. A cursor after
// the last event, but not in the future, is made up or from a log that was restored to
// an earlier state: it becomes the end of the log.
func (s *subscriber) rewind(cursor uint64) error {
	cursor = min(cursor, s.firehose.cfg.Log.Head())
	dropped, err := s.firehose.cfg.Log.Dropped()
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	if s.cursor = max(cursor, dropped); cursor == s.cursor {
		return nil
	}
	info := infoFrame("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events")
	return s.write(&frame{data: info})
}
