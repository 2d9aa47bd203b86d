// Package announce has the sink that writes a post for each pushed image. Its subpackage
// posted has what was announced.
package announce
