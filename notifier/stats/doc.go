// Package stats shows the numbers: a JSON API under /tidings/api/v1.
//
// It only reads, and it decides who sees what: without a token a repository
// that is not public looks as if it were not there. It is never on the way of
// a push or a pull. Where the numbers come from is left to counter.
package stats
