package middleware

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/quota"
)

// notices implements hold.Notifier and hold.UserData with the notifier.
type notices struct{ notifier *notifier.Notifier }

// Notify records what another registry reports.
func (n notices) Notify(ctx context.Context, notification hold.Notification) (lexicon.NotifyManifestOutput, error) {
	out, err := n.notifier.Notify(ctx, inbound.Notification(notification))
	return out, answered(err)
}

// HasData reports whether an account has records of images.
func (n notices) HasData(did string) (bool, error) { return n.notifier.UserData().HasData(did) }

// DeleteData has the records of an account's images deleted.
func (n notices) DeleteData(ctx context.Context, d hold.Deletion) (lexicon.DeletedUserData, error) {
	out, err := n.notifier.UserData().Delete(ctx, inbound.Notification{Issuer: d.DID, Unlisted: d.Unlisted, Token: d.Token})
	return out, answered(err)
}

// answered returns the error that the caller gets.
func answered(err error) error {
	var exceeded *quota.ExceededError
	switch {
	case errors.As(err, &exceeded):
		err = xrpc.NewError(http.StatusForbidden, lexicon.ErrorQuotaExceeded, exceeded.Error())
	case errors.Is(err, inbound.ErrTokenUsed):
		err = auth.ErrTokenReplay
	case errors.Is(err, inbound.ErrBusy):
		err = xrpc.TooManyRequests(time.Minute)
	case errors.Is(err, inbound.ErrKeyReused):
		err = xrpc.InvalidRequest("this Idempotency-Key was used for another request; use a new key for each push and pull")
	}
	return err
}
