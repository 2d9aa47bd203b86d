package counter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// beforeCall runs do before the n-th call of a script.
type beforeCall struct {
	n  int
	do func()
}

func (b *beforeCall) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *beforeCall) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *beforeCall) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "eval") {
			if b.n--; b.n == 0 {
				b.do()
			}
		}
		return next(ctx, cmd)
	}
}

// afterFetch runs do after a read of fields.
type afterFetch struct {
	beforeCall
	do func()
}

func (a *afterFetch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "hget" {
			defer a.do()
		}
		return next(ctx, cmds)
	}
}

func (a *afterFetch) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// lostAnswer makes every call of a script fail; with applied, after it was executed.
type lostAnswer struct {
	beforeCall
	applied bool
}

var errNoAnswer = errors.New("connection reset by test")

func (a *lostAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		if a.applied {
			next(ctx, cmd)
		}
		cmd.SetErr(errNoAnswer)
		return errNoAnswer
	}
}

// unreachable makes every command fail while now is set.
type unreachable struct{ now bool }

func (u *unreachable) DialHook(next redis.DialHook) redis.DialHook { return next }

func (u *unreachable) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if u.now {
			cmd.SetErr(errNoAnswer)
			return errNoAnswer
		}
		return next(ctx, cmd)
	}
}

func (u *unreachable) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if u.now {
			return errNoAnswer
		}
		return next(ctx, cmds)
	}
}

// waitForRedis waits until the client can reach Redis again.
func waitForRedis(t testing.TB, client redis.UniversalClient) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); client.Ping(t.Context()).Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Redis is still unreachable")
		}
	}
}
