package firehose

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/gorilla/websocket"
)

// closeTimeout is how long each side may take to close the connection.
const closeTimeout = time.Second

// subscriber is a connection. run writes to it, listen reads from it.
type subscriber struct {
	firehose *Firehose
	conn     *websocket.Conn
	client   netip.Prefix
	cursor   uint64 // sequence number of the last event sent; at first the head of the log, or the client's cursor
	pace     pace

	ended  chan struct{} // closed by listen when the connection has ended
	endErr error         // the reason; valid once ended is closed
}

func (s *subscriber) run(cursor []string) {
	go s.listen()
	err := s.begin(cursor)
	if err == nil {
		err = s.stream()
	}
	s.end(err)
	s.firehose.leave(s, err)
}

// stream sends the events after the cursor until there is a reason to end.
func (s *subscriber) stream() error {
	f := s.firehose
	ping := time.NewTicker(f.cfg.PingInterval)
	defer ping.Stop()
	for {
		frames, err := f.feed.after(s.cursor)
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		for _, m := range frames {
			if err := s.send(m, ping.C); err != nil {
				return err
			}
		}
		if len(frames) > 0 {
			continue
		}
		select {
		case <-f.cfg.Log.Wake(s.cursor):
		case <-ping.C:
			if err := s.ping(); err != nil {
				return err
			}
		case <-s.ended:
			return s.endErr
		case <-f.closing:
			return errGoingAway
		}
	}
}

// send writes a frame from the log, unless there is a reason to end.
func (s *subscriber) send(m *frame, ping <-chan time.Time) error {
	select {
	case <-s.ended:
		return s.endErr
	case <-s.firehose.closing:
		return errGoingAway
	case <-ping:
		if err := s.ping(); err != nil {
			return err
		}
	default:
	}
	if err := s.write(m); err != nil {
		return err
	}
	s.cursor = m.seq
	now := s.firehose.cfg.Now()
	if s.pace.tooSlow(now, len(m.data), now.Sub(time.UnixMicro(int64(m.seq)))) {
		return errTooSlow
	}
	return nil
}

func (s *subscriber) write(m *frame) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.firehose.cfg.WriteTimeout)) // never fails
	if err := m.write(s.conn); err != nil {
		return s.writeError(err)
	}
	s.firehose.cfg.Metrics.sent(len(m.data))
	return nil
}

func (s *subscriber) ping() error {
	err := s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(s.firehose.cfg.WriteTimeout))
	if err != nil {
		return s.writeError(err)
	}
	return nil
}

// writeError returns the reason for a failed write: that of listen if the connection
// has ended, or else err.
func (s *subscriber) writeError(err error) error {
	select {
	case <-s.ended:
		return s.endErr
	default:
		return fmt.Errorf("%w: %w", errGone, err)
	}
}

// end sends the reason to the client, if it is still connected, and closes the socket.
func (s *subscriber) end(why error) {
	defer func() {
		_ = s.conn.Close()
		<-s.ended
	}()
	lg := s.firehose.cfg.Logger.With("client", s.client, "cursor", s.cursor)
	code, text := websocket.CloseInternalServerErr, "InternalServerError"
	var refused *refusal
	switch {
	case errors.Is(why, errGone):
		lg.Debug("subscriber left", "reason", why)
		return
	case errors.Is(why, errFlood):
		lg.Info("subscriber dropped", "reason", why)
		code, text = websocket.ClosePolicyViolation, "this stream takes no messages"
	case errors.Is(why, errGoingAway):
		code, text = websocket.CloseGoingAway, errGoingAway.Error()
	case errors.As(why, &refused):
		lg.Info("subscriber dropped", "reason", why)
		code, text = websocket.ClosePolicyViolation, refused.name
		_ = s.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		if s.conn.WriteMessage(websocket.BinaryMessage, errorFrame(refused.name, refused.message)) != nil {
			return
		}
	default:
		lg.Error("stream failed", "error", why)
	}
	err := s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(closeTimeout))
	if err != nil {
		return
	}
	// Closing a socket with unread data may discard sent data.
	select {
	case <-s.ended:
	case <-time.After(closeTimeout):
	}
}
