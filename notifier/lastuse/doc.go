// Package lastuse keeps when each tag and manifest of the registry was last pushed and last
// used, for package unused, which lists those that are not used any more. Package counter
// writes its rows in the transaction that counts the events.
package lastuse
