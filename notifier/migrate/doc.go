// Package migrate rewrites a state of the notifier that an earlier version has written.
package migrate
