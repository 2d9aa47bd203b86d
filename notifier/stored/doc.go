// Package stored asks the registry's storage what it has.
package stored
