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
	// IntendDelete notes a manifest or a tag that is about to be removed. An error
	// means that nothing was noted; the delete is then refused and nothing is
	// removed.
	IntendDelete(ctx context.Context, d notifier.Delete) (Intent, error)
	// Pull records an answer that is about to go out. It neither fails nor
	// waits for anything but this machine's operating system.
	Pull(p notifier.Pull)
}

// Intent is a push or a delete that is on its way through storage. Exactly one of
// its methods is called, once, unless the process dies first.
type Intent interface {
	// Complete says that it has happened and returns once its event is durable.
	// After an error the request is answered 503, and storage is asked later.
	Complete(ctx context.Context) error
	// Abandon says that it came to nothing.
	Abandon()
	// Release says that nobody knows; storage is asked later.
	Release()
}
