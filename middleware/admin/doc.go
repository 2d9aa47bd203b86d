// Package admin is the admin API: plain HTTP and JSON on a unix socket in the data folder.
//
// Only the user of the process and root can open the socket, and may call everything: there is
// no other authentication. docs/admin.md describes the API.
package admin
