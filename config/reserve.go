package config

import "fmt"

const (
	// notGiven stands for a size until it is known that the option is missing.
	notGiven Size = -1

	defaultReserve Size = 1 << 30

	// minReserve keeps the databases from meeting a full disk, which they may not
	// survive without a restart.
	minReserve Size = 1 << 20
)

// checkReserve checks both reserves and gives those that are missing their
// defaults. hold.reserve is the older option: on its own it is for both.
func (o *Options) checkReserve(m *mistakes) {
	m.check("options.reserve", o.Reserve.checkReserve())
	if o.Hold != nil {
		m.check("options.hold.reserve", o.Hold.Reserve.checkReserve())
		if o.Reserve == notGiven {
			o.Reserve = o.Hold.Reserve
		}
	}
	if o.Reserve == notGiven {
		o.Reserve = defaultReserve
	}
	if o.Hold != nil && o.Hold.Reserve == notGiven {
		o.Hold.Reserve = o.Reserve
	}
}

func (s Size) checkReserve() error {
	if s == notGiven || s >= minReserve {
		return nil
	}
	return fmt.Errorf("%s is too small; at least %s", s, minReserve)
}
