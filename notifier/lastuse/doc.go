// Package lastuse keeps when each tag and manifest of the registry was last pushed and last
// used, so that those that nobody uses can be found (package unused). Package counter
// writes its rows in the transaction that counts the events.
package lastuse
