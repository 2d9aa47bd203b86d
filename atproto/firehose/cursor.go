package firehose

import (
	"fmt"
	"slices"
	"strconv"
)

// parseCursor parses the values of the cursor parameter; live means that there is no
// cursor. @atproto/sync sends an empty one for none. A negative cursor is 0.
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

// begin sets the cursor of a new subscriber.
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

// rewind sets the cursor, to the oldest kept event if that is later. A cursor after
// the last event, but not in the future, is invented or comes from a log that was
// restored to an earlier state: the next event is after it as well.
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
