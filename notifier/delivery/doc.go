// Package delivery writes the batches of the sinks to the repo of the account, each
// write exactly once.
package delivery
