package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

const (
	crowdEvents = 10_000           // read by each subscriber
	settleTime  = 10 * time.Second // pause before memory is measured
)

// measureCrowd measures the hold's memory with n subscribers that wait for the next
// event, read the event log from its beginning, or do not read the log that they
// requested.
func measureCrowd(ctx context.Context, program, data string, n int) error {
	s, err := pds.StartTidings(ctx, program, data)
	if err != nil {
		return err
	}
	defer s.Stop()
	t, err := newTarget(ctx, s)
	if err != nil {
		return err
	}
	for range crowdEvents {
		if _, err := t.write(ctx, 1); err != nil {
			return err
		}
	}
	t.printMemory("%d events, no subscriber", crowdEvents)
	for _, crowd := range []struct {
		does  string
		query string
		read  int // events of each subscriber
	}{
		{"wait for events", "", 0},
		{"read the log", "?cursor=0", crowdEvents},
		{"do not read the log", "?cursor=0", 0},
	} {
		began := time.Now()
		disconnect, err := t.crowd(ctx, n, crowd.query, crowd.read)
		if err != nil {
			return err
		}
		took := time.Since(began)
		if crowd.read == 0 {
			time.Sleep(settleTime)
		}
		t.printMemory("%d subscribers %s, %v", n, crowd.does, took.Round(time.Millisecond))
		disconnect()
		time.Sleep(settleTime)
	}
	return nil
}

func (t *target) printMemory(format string, args ...any) {
	now, peak := t.Memory()
	fmt.Printf("%s: memory %d MB, peak %d MB\n", fmt.Sprintf(format, args...), now>>20, peak>>20)
}

// crowd connects n subscribers and returns when each has read the number of events.
// The caller must call disconnect.
func (t *target) crowd(ctx context.Context, n int, query string, events int) (disconnect func(), err error) {
	var reading sync.WaitGroup
	var conns []*websocket.Conn
	disconnect = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	failed := make(chan error, n)
	for range n {
		conn, err := t.subscribe(ctx, query)
		if err != nil {
			disconnect()
			return nil, err
		}
		conns = append(conns, conn)
		reading.Go(func() { failed <- readCommits(conn, events) })
	}
	reading.Wait()
	for range n {
		if err := <-failed; err != nil {
			disconnect()
			return nil, err
		}
	}
	return disconnect, nil
}

func readCommits(conn *websocket.Conn, n int) error {
	for n > 0 {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("%d events missing: %w", n, err)
		}
		if bytes.Contains(frame[:20], []byte("#commit")) {
			n--
		}
	}
	return nil
}
