// Package hold is a single-account AT Protocol server (PDS) over one repo:
// the XRPC methods, the well-known files, and the state of the account in the
// network. Writes over the network need a session, sessions need logins to be
// allowed by the operator, and a signing key is created by Init only.
//
// Records are validated against the data model and the known schemas before they
// reach atproto/repo, which signs and stores them. The dispatcher is atproto/xrpc,
// access is atproto/auth, and keys and DID documents are atproto/identity. The
// endpoints are in files by family: sync_read.go and sync_export.go
// (com.atproto.sync), repo_read.go and repo_write.go (com.atproto.repo), blob.go,
// session.go (com.atproto.server), notify_manifest.go and well_known.go.
//
// Statuses and error names are those of the reference server, with exceptions: a
// write to a key that exists or does not exist is a 400 with its reason, where the
// reference server answers a bare 500; deleting a session also ends its access
// tokens; and a request for a state of the repo that is not kept is refused rather
// than answered with another state.
package hold
