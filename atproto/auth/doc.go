// Package auth authenticates and authorizes the callers of a hold.
//
// The account's owner logs in with a password and gets a session (Sessions):
// access and refresh tokens as at the reference server. Other services call with
// service tokens, JWTs signed with the key of their own account (Callers); Sign
// issues such tokens for the hold's account.
//
// Passwords are stored as hashes, and neither passwords nor tokens appear in logs
// or errors. Package hold decides which methods need which access.
package auth
