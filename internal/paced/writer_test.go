package paced

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// deadlineRecorder records the write deadline of a connection.
type deadlineRecorder struct {
	http.ResponseWriter
	deadline time.Time
}

func (r *deadlineRecorder) SetWriteDeadline(t time.Time) error { r.deadline = t; return nil }

func TestWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &deadlineRecorder{ResponseWriter: httptest.NewRecorder()}
		w := NewWriter(out, 30*time.Second)
		piece := make([]byte, 64<<10)
		for i, c := range []struct{ took, left time.Duration }{
			{0, 30 * time.Second},
			{29 * time.Second, 9 * time.Second}, // 30 s + 2*64 KiB / 16 KiB/s - 29 s
			{time.Second, 12 * time.Second},
			{4 * time.Second, 12 * time.Second},
			{0, 16 * time.Second},
			{0, 20 * time.Second},
			{0, 24 * time.Second},
			{0, 28 * time.Second},
			{0, 30 * time.Second}, // the timeout of one write
		} {
			time.Sleep(c.took)
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(out.deadline).Round(time.Second); left != c.left {
				t.Errorf("write %d: deadline in %v, want %v", i, left, c.left)
			}
		}
		w.Done()
		if !out.deadline.IsZero() {
			t.Error("Done keeps the deadline")
		}
	})
}
