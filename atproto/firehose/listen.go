package firehose

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// Limits of the messages of a subscriber: pings, pongs, a close, and few others.
const (
	listenSize   = 4 << 10 // bytes of a message
	listenCount  = 1000    // of them ...
	listenWindow = 10 * time.Second
)

// listen reads from the subscriber, so that pings are answered and a disconnect is
// noticed.
func (s *subscriber) listen() {
	s.endErr = s.readAll()
	close(s.ended)
	// Ends a blocked write to this subscriber.
	_ = s.conn.NetConn().SetWriteDeadline(time.Now().Add(closeTimeout))
}

func (s *subscriber) readAll() error {
	var count int
	var since time.Time
	received := func() error {
		now := time.Now()
		if now.Sub(since) > listenWindow {
			since, count = now, 0
		}
		if count++; count > listenCount {
			return errFlood
		}
		return s.conn.SetReadDeadline(now.Add(s.firehose.cfg.PongTimeout))
	}
	s.conn.SetReadLimit(listenSize)
	s.conn.SetPongHandler(func(string) error { return received() })
	s.conn.SetPingHandler(func(data string) error {
		if err := received(); err != nil {
			return err
		}
		// Fails if a frame blocks the socket: the subscriber reads nothing then.
		_ = s.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(closeTimeout))
		return nil
	})
	for {
		if err := received(); err != nil {
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
			return fmt.Errorf("%w: no pong for %s", errGone, s.firehose.cfg.PongTimeout)
		}
		return fmt.Errorf("%w: %w", errGone, err)
	}
}
