package explain

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/config"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{time.Hour: "1h", 90 * time.Minute: "1h30m", 20 * time.Second: "20s", 10 * time.Minute: "10m", 61 * time.Second: "1m1s", 3610 * time.Second: "1h0m10s"} {
		if got := Duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	tiers := map[string]config.Tier{"paid": {Limit: 500 << 30}, "free": {Limit: 5 << 30}, "none": {}}
	one := []config.QuotaOwner{{Owner: "did:web:a.example.com", Tier: "paid"}}
	for _, tc := range []struct {
		name  string
		quota *config.Quota
		want  []string
	}{
		{"none", nil, nil},
		{"a default", &config.Quota{Tiers: tiers, Default: "free", Owners: one}, []string{"quota: none 0B, free 5GiB (default), paid 500GiB; owners with a tier of their own: 1"}},
		{"no default", &config.Quota{Tiers: tiers, Owners: one}, []string{"quota: none 0B, free 5GiB, paid 500GiB; owners with a tier of their own: 1", ": other owners have no limit"}},
	} {
		var got []string
		quota(func(topic, format string, args ...any) { got = append(got, topic+": "+fmt.Sprintf(format, args...)) }, tc.quota)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
