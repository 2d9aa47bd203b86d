// Package publication makes the registry a site.standard.publication: it owns the record of
// the publication, the contents of the documents of its versions, their references to
// posts, and the file by which readers verify them.
package publication
