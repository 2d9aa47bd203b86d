// Package posted has the rows that say what was announced: of each image its announcements,
// and of each post the images that it is about.
package posted
