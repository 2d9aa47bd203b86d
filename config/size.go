package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/internal/store"
)

// Size is a number of bytes, such as "16MiB" (units of 1,024) or "5GB" (units of
// 1,000). A number without a unit is bytes.
type Size int64

var units = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

var errSize = errors.New(`invalid size; use a number and a unit, like "16MiB" or "5GB"`)

func parseSize(text string) (Size, error) {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.ContainsAny(number, "eExXpP_nN") {
		return 0, errSize
	}
	if n < 0 {
		return 0, errors.New("a size cannot be negative")
	}
	if n*float64(factor) >= math.MaxInt64 {
		return 0, errors.New("the size is too large")
	}
	return Size(n * float64(factor)), nil
}

// String returns the size in the unit with the shortest result: "16MiB", "5GB".
func (s Size) String() string {
	shortest := fmt.Sprintf("%dB", int64(s))
	for _, u := range units {
		if text := fmt.Sprintf("%d%s", int64(s)/u.bytes, u.name); int64(s) >= u.bytes && int64(s)%u.bytes == 0 && len(text) < len(shortest) {
			shortest = text
		}
	}
	return shortest
}

// unset is the value of a size option that is not given, until its default is
// known.
const unset Size = -1

// checkReserve checks both reserves and sets the defaults of those that are not
// given. hold.reserve is the older option: alone it applies to both.
func (o *Options) checkReserve(m *mistakes) {
	m.check("options.reserve", o.Reserve.checkReserve())
	if o.Hold != nil {
		m.check("options.hold.reserve", o.Hold.Reserve.checkReserve())
		if o.Reserve == unset {
			o.Reserve = o.Hold.Reserve
		}
	}
	if o.Reserve == unset {
		o.Reserve = store.DefaultReserve
	}
	if o.Hold != nil && o.Hold.Reserve == unset {
		o.Hold.Reserve = o.Reserve
	}
}

func (s Size) checkReserve() error {
	if s == unset || s >= store.MinReserve {
		return nil
	}
	return fmt.Errorf("%s is too small; the minimum is %s", s, Size(store.MinReserve))
}
