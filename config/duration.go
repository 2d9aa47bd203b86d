package config

import (
	"errors"
	"time"
)

// DurationOrOff is a duration, or 0 for off. An unquoted off is false in YAML 1.1.
type DurationOrOff time.Duration

func durationOrOff(raw any) (DurationOrOff, error) {
	switch raw {
	case false, "off":
		return 0, nil
	case true:
		return 0, errors.New(`is true, but must be a duration like "6h", or off`)
	}
	d, err := duration(raw)
	return DurationOrOff(d), err
}
