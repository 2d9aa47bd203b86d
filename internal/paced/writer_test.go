package paced

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines is a connection that notes until when a write may take.
type deadlines struct {
	http.ResponseWriter
	at time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.at = at; return nil }

func TestWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &deadlines{ResponseWriter: httptest.NewRecorder()}
		w := NewWriter(out, 30*time.Second)
		piece := make([]byte, 64<<10)
		for i, c := range []struct{ took, left time.Duration }{
			{0, 30 * time.Second},
			{29 * time.Second, 9 * time.Second}, // 30 s and 8 for what is sent, less 29
			{time.Second, 12 * time.Second},
			{4 * time.Second, 12 * time.Second},
			{0, 16 * time.Second},
			{0, 20 * time.Second},
			{0, 24 * time.Second},
			{0, 28 * time.Second},
			{0, 30 * time.Second}, // no more for a piece
		} {
			time.Sleep(c.took)
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(out.at).Round(time.Second); left != c.left {
				t.Errorf("piece %d has %v, want %v", i, left, c.left)
			}
		}
		w.Done()
		if !out.at.IsZero() {
			t.Error("the limit outlives the answer")
		}
	})
}
