package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	frameTimeout  = 10 * time.Second       // for a commit to reach all subscribers
	frameInterval = 100 * time.Millisecond // between commits
	maxFrames     = 10                     // commits in a turn
)

// arrival is a frame received by a subscriber.
type arrival struct {
	at    time.Time
	frame []byte
}

// frames measures the time from the response of a commit to the arrival of its frame,
// as the mean of all subscribers; a frame that arrives before the response counts as 0.
func frames(subscribers int) func(context.Context, pace, *target) (sample, error) {
	return func(ctx context.Context, p pace, t *target) (sample, error) {
		ctx, cancel := context.WithCancel(ctx)
		arrivals := make(chan arrival, subscribers*maxFrames)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for range subscribers {
			conn, err := t.subscribe(ctx, "")
			if err != nil {
				return sample{}, err
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			wg.Go(func() { receive(conn, arrivals) })
		}
		time.Sleep(frameInterval) // until all are subscribed

		var took []time.Duration
		began := time.Now()
		for range maxFrames {
			rev, err := t.write(ctx, 1)
			if err != nil {
				return sample{}, err
			}
			answered := time.Now()
			times, err := await(arrivals, rev, subscribers, answered)
			if err != nil {
				return sample{}, err
			}
			took = append(took, times...)
			if time.Since(began) > 2*p.turn {
				break
			}
			time.Sleep(frameInterval - time.Since(answered))
		}
		got := timings(took, 1, time.Since(began))
		got.done = len(took) / subscribers
		got.rate = float64(got.done) / time.Since(began).Seconds()
		return got, nil
	}
}

func receive(conn *websocket.Conn, arrivals chan<- arrival) {
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return // closed at the end of the turn
		}
		select {
		case arrivals <- arrival{time.Now(), frame}:
		default:
			return // too many frames; await reports the missing ones
		}
	}
}

// await waits for the commit's frame from each subscriber.
func await(arrivals <-chan arrival, rev string, subscribers int, answered time.Time) ([]time.Duration, error) {
	var took []time.Duration
	late := time.After(frameTimeout)
	for len(took) < subscribers {
		select {
		case a := <-arrivals:
			if bytes.Contains(a.frame, []byte("#commit")) && bytes.Contains(a.frame, []byte(rev)) {
				took = append(took, max(0, a.at.Sub(answered)))
			}
		case <-late:
			return nil, fmt.Errorf("%d of %d subscribers have the frame of %s after %s", len(took), subscribers, rev, frameTimeout)
		}
	}
	return took, nil
}
