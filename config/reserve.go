package config

import (
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

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
