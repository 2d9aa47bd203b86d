// Package hold is a single-account AT Protocol server (a PDS) over one
// repository: its identity as did:web, its signing key, its one password, and
// the XRPC methods and well-known files that the network asks for.
//
// It promises that nothing is written over the network without a session,
// that no session begins unless the operator allows logins, that a key is only
// ever made by Init, and that keys, passwords and tokens stay out of logs and
// errors. Records are checked against the data model and the known schemas
// before they reach the repository (atproto/repo), which keeps and signs them.
//
// Statuses and error names are those of the reference server, with exceptions: a
// write to a key that is taken or missing is a 400 that says so, where the
// reference answers a bare 500; a session that was deleted ends its access
// tokens too; and a state of the repository that is not kept is refused, never
// answered with another.
package hold
