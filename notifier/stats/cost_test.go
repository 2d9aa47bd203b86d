package stats

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/counter"
)

// crowded is an API with so many repositories, half of them public; looks counts
// how often it was asked whether one is.
func crowded(n int) (cfg Config, looks *int) {
	list := make([]counter.Totals, n)
	for i := range list {
		folder := []string{"oss", "secret"}[i%2]
		list[i] = counter.Totals{Name: fmt.Sprintf("%s/app%06d", folder, i), Counts: map[counter.Class]int64{counter.Pull: int64(i * 7919 % n)}}
	}
	looks = new(int)
	return Config{Source: &numbersFake{list: list}, Visible: func(name string) bool { *looks++; return strings.HasPrefix(name, "oss/") }}, looks
}

// A page costs the same however many repositories there are, public or not, but
// for the first in a moment.
func TestPagesAreCheap(t *testing.T) {
	t.Parallel()
	cfg, looks := crowded(10_000)
	h := New(cfg)
	ask := func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
		if w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	ask()
	*looks = 0
	ask()
	if *looks > 10 {
		t.Errorf("the second page looks at %d repositories, want 10", *looks)
	}
}

func BenchmarkPage(b *testing.B) {
	cfg, _ := crowded(100_000)
	h := New(cfg)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", Prefix+"repositories?sort=pulls&limit=10", nil))
	}
}
