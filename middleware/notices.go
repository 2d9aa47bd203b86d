package middleware

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/notifier/inbound"
)

// notices hands on to the notifier what the hold hears from other registries.
// The notifier is opened after the hold, and before there are requests.
type notices struct{ *runtime }

func (r notices) Notify(ctx context.Context, n hold.Notification) (lexicon.NotifyManifestOutput, error) {
	out, err := r.notifier.Notify(ctx, inbound.Notification(n))
	switch {
	case errors.Is(err, inbound.ErrTokenUsed):
		err = auth.ErrTokenReplay
	case errors.Is(err, inbound.ErrKeyReused):
		err = xrpc.InvalidRequest("this Idempotency-Key was used for another call; make a new key for each push and pull")
	}
	return out, err
}
