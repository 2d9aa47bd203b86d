// Package pushrow has the rows that the state has for each push.
package pushrow
