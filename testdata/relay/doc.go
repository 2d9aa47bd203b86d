// Package relay has a relay that we did not write follow a hold. It is a module
// of its own, since that relay brings a database, cgo and more that the program
// has no use for.
package relay
