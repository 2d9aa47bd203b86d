package middleware

import (
	"errors"

	"github.com/distribution/distribution/v3/configuration"
)

// wire puts the parts together that a configuration asks for.
func wire(*configuration.Configuration) (parts, error) {
	return parts{}, errors.New("this build has nothing to record with")
}
