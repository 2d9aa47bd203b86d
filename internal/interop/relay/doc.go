// Package relay has a relay and tap, the network's mirror, follow a hold; we
// wrote neither. It is a module of its own, since they bring a database, cgo
// and more that the program has no use for.
package relay
