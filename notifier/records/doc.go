// Package records has the sink that writes the layer records of public repositories to the
// account's repo, and deletes them.
package records
