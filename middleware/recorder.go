package middleware

import (
	"context"

	"github.com/tidings-dev/tidings/notifier"
)

// Recorder is told what happens in the registry. Its methods are called on
// the way of a request, from many goroutines at once.
type Recorder interface {
	// Intend notes a push that is about to be stored. An error means that
	// nothing was noted; the push is then refused and nothing is stored. An
	// errcode.Error is answered as it is, any other error as a 503.
	Intend(ctx context.Context, p notifier.Push) (Intent, error)
	// Delete records what has been removed, and returns once that is durable.
	Delete(ctx context.Context, d notifier.Delete) error
	// Pull records an answer that is about to go out. It neither fails nor
	// waits for anything but this machine's operating system.
	Pull(p notifier.Pull)
}

// Intent is a push that is being stored. Exactly one of its methods is called,
// once, unless the process dies first.
type Intent interface {
	// Complete says that the push is stored and returns once its event is
	// durable. After an error the push is answered 503.
	Complete(ctx context.Context) error
	// Abandon says that the push came to nothing.
	Abandon()
}
