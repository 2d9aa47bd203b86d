// Package card draws the picture of an announcement: a PNG file of 1200 by 630 pixels
// with the name, version, size, platforms and layers of an image.
//
// It is deterministic: the same facts give the same bytes, from the same program on the
// same architecture. It reads no files and needs no network: the fonts are the Go fonts,
// which are compiled in (Copyright 2016 Bigelow & Holmes Inc., released under the BSD
// license of the Go project; see https://go.dev/blog/go-fonts).
//
// Names are ASCII in a registry; those from elsewhere may be in scripts that the fonts
// lack. The fonts have Latin, Greek and Cyrillic. What they lack becomes "·", once for
// each run, and a name of which nothing is left is replaced by the short digest. A long
// name is drawn smaller, then in two lines, then without its middle.
package card
