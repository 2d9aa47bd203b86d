// Package remotetest is a hold for tests of its callers. It behaves as the published
// schema and ATCR's holds do: it knows no Idempotency-Key, writes a record for each layer
// of each push, and counts each call. It is strict: a call that does not conform to the
// schema, or whose token is not good, is refused.
package remotetest
