// Package appview asks an AppView whether it has indexed the account's posts.
//
// A post that is in the account's repo may never be shown: a relay can have stopped
// reading the host, the AppView can be behind, or the account can be hidden there. None
// of these is visible to the writer. So each post is looked up with
// app.bsky.feed.getPosts until the AppView has it, at growing intervals, and for at
// most an hour.
//
// The AppView is configured by the operator, but not trusted; package guard limits what
// it can do. Requests need no account and send nothing but the addresses of public posts.
package appview
