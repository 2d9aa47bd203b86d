package config

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// Options that can be off. YAML 1.1 parses an unquoted off as false.

// DurationOrOff is a duration, or 0 for off.
type DurationOrOff time.Duration

func durationOrOff(raw any) (DurationOrOff, error) {
	switch raw {
	case false, "off":
		return 0, nil
	}
	d, err := duration(raw)
	if err != nil {
		return 0, fmt.Errorf(`is %s, but must be a duration like "6h", or off`, kind(raw))
	}
	return DurationOrOff(d), nil
}

// AddressOrOff is the address of a service, or off.
type AddressOrOff string

func addressOrOff(raw any) (AddressOrOff, error) {
	if raw == false {
		return appview.Off, nil
	}
	s, ok := raw.(string)
	if !ok {
		return "", fmt.Errorf("is %s, but must be an address or off", kind(raw))
	}
	return AddressOrOff(s), nil
}

// PointsOrOff is a number of points, or pds.NoLimit for off.
type PointsOrOff int

func pointsOrOff(raw any) (PointsOrOff, error) {
	if raw == false || raw == "off" {
		return pds.NoLimit, nil
	}
	n, err := integer(raw)
	if err != nil {
		return 0, fmt.Errorf("is %s, but must be a number of points or off", kind(raw))
	}
	return PointsOrOff(n), pds.CheckLimit(n)
}
