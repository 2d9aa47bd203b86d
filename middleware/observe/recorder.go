package observe

import (
	"context"

	"github.com/tidings-dev/tidings/notifier"
)

// Recorder records what happens in the registry. Its methods are called during
// requests, by many goroutines at the same time.
type Recorder interface {
	// Intend records a push before it is stored. After an error the push is refused
	// and nothing is stored: an errcode.Error is sent as it is, any other error as a
	// 503.
	Intend(ctx context.Context, p notifier.Push) (Intent, error)
	// IntendDelete records the delete of a manifest or a tag before it happens. After
	// an error the delete is refused and nothing is deleted.
	IntendDelete(ctx context.Context, d notifier.Delete) (Intent, error)
	// Pull records a pull whose response is about to be sent. It does not fail, and
	// waits for nothing but system calls of this machine.
	Pull(p notifier.Pull)
}

// Intent is a push or a delete in progress. Exactly one of its methods is called,
// once, unless the process dies first.
type Intent interface {
	// Complete records that the operation happened, and returns once the event is
	// durable. After an error the request is answered 503, and the intent is resolved
	// later.
	Complete(ctx context.Context) error
	// Abandon records that the operation did not happen.
	Abandon()
	// Release leaves the intent open. It is resolved later by asking storage.
	Release()
}
