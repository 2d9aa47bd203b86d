// Package identity has the identity of a hold: its did:web and handle, its
// signing key in a file, and the DID document that it publishes. It also fetches
// the DID documents of other accounts, through atproto/guard, so that a DID that
// somebody else has chosen cannot lead to an internal address.
//
// Key files are readable by their owner only, and their content never appears in
// an error. Changing the key of a repo that exists takes a change of the
// repo as well; package hold does both, see hold.RotateKey.
package identity
