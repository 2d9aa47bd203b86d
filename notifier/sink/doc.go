// Package sink defines what a sink is, and has what the sinks share.
package sink
