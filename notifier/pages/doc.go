// Package pages serves the announced versions of public repositories to people: HTML pages
// and Atom feeds under /tidings/.
//
// The pages need no scripts and no other hosts. A repository that is not public looks like
// one that does not exist.
package pages
