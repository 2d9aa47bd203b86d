package middleware

import (
	"errors"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/tidings-dev/tidings/notifier/quota"
)

// quotaError is the registry's error for a push that does not fit into its owner's quota: a
// 403. Other errors are unchanged.
func quotaError(err error) error {
	var exceeded *quota.ExceededError
	if !errors.As(err, &exceeded) {
		return err
	}
	return errcode.ErrorCodeDenied.WithMessage(exceeded.Error()).WithDetail(map[string]int64{
		"used": exceeded.Used, "limit": exceeded.Limit, "push": exceeded.Push,
	})
}
