// Package middleware hears what happens in a CNCF distribution registry and
// tells it to a Recorder: manifests that are pushed, pulled and deleted, and
// tags that are removed. It is also the one place that knows every other part
// of Tidings and puts them together for a registry's configuration.
//
// It sits in two places of the registry. Around the whole app a Handler gives
// each manifest request a place in its context where facts are collected;
// around each repository thin wrappers put the facts there. The event is
// completed when the answer's final status is about to go out, because only
// then is it known what happened: a push whose tag failed, a manifest that was
// read and then refused for a wrong Accept header, a HEAD and a 304 all look
// alike from inside the repository.
//
// What is promised: no byte of an answer leaves before its event is safe; a
// push that cannot be recorded is answered 503, and if that is known before
// it is stored, it is not stored; counting never fails a pull; everything
// that is no manifest request, and every registry whose configuration has no
// entry named "tidings", is left exactly as it was.
//
// What is left to others: what an event means (notifier), what the options
// mean (config), who may ask the mounted routes (atproto/hold,
// notifier/stats).
package middleware
