package firehose

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// What a subscriber may send: pings, pongs and a close, and little of anything.
const (
	listenSize   = 4 << 10 // bytes of a message
	listenCount  = 1000    // of them ...
	listenWindow = 10 * time.Second
)

// listen reads what the subscriber sends, so that pings are answered and an
// end is noticed.
func (s *subscriber) listen() {
	s.goneFor = s.heard()
	close(s.gone)
	// A write that waits for this subscriber needn't wait any longer.
	_ = s.conn.NetConn().SetWriteDeadline(time.Now().Add(farewell))
}

func (s *subscriber) heard() error {
	var count int
	var since time.Time
	hear := func() error {
		now := time.Now()
		if now.Sub(since) > listenWindow {
			since, count = now, 0
		}
		if count++; count > listenCount {
			return errFlood
		}
		return s.conn.SetReadDeadline(now.Add(s.firehose.cfg.Silence))
	}
	s.conn.SetReadLimit(listenSize)
	s.conn.SetPongHandler(func(string) error { return hear() })
	s.conn.SetPingHandler(func(data string) error {
		if err := hear(); err != nil {
			return err
		}
		// While a frame waits for the subscriber to read, so does the answer.
		_ = s.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(farewell))
		return nil
	})
	for {
		if err := hear(); err != nil {
			return err
		}
		_, _, err := s.conn.NextReader()
		if err == nil {
			continue
		}
		var timeout net.Error
		switch {
		case errors.Is(err, errFlood), errors.Is(err, websocket.ErrReadLimit):
			return errFlood
		case errors.As(err, &timeout) && timeout.Timeout():
			return fmt.Errorf("%w: it answered no ping for %s", errGone, s.firehose.cfg.Silence)
		}
		return fmt.Errorf("%w: %w", errGone, err)
	}
}
