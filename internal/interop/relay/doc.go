// Package relay tests a hold with indigo's relay and tap, the network's mirror. It is a
// module of its own because of their dependencies, such as a database and cgo, which
// the program does not need. Run it with `make interop`, or go test in this folder.
package relay
