// Package announce has the sink that writes a post for each pushed image, and the history
// of what was announced.
package announce
