// Package observe follows manifest requests through a CNCF distribution registry
// and reports pushes, pulls and deletes to a Recorder.
//
// It sits in two places. Observer.Handler wraps the whole app: it attaches a
// request to the context of each manifest request, which collects facts, and
// looks at the status of the answer. Observer.Repository wraps each repository:
// its manifest and tag services report what storage did to that request.
//
// Only both together tell what happened. A push whose tag failed, a manifest that
// was read and then refused for its media type, a HEAD and a 304 all look alike
// from inside the repository. So an event is completed when the final status is
// about to be sent.
//
// The life of a push:
//
//  1. Before the inner Put, Recorder.Intend makes an intent durable. If that fails
//     the push is answered 503 and nothing is stored.
//  2. The inner Put stores the manifest, the inner Tag sets the tag.
//  3. When a 2xx status is about to be sent, the intent is completed. The status
//     follows once the event is durable; if that fails, a 503 is sent instead.
//  4. If storage refused the manifest, the intent is abandoned. With any other
//     status or error it is not known what storage did: the intent is released,
//     and the recorder asks storage later.
//
// A crash between 1 and 3 leaves the intent open, which the recorder resolves in
// the same way. A delete has an intent as well, completed as soon as storage has
// deleted. A pull is reported when a 200 is about to be sent; it has no intent
// and never fails.
package observe
