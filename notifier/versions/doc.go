// Package versions stores the announced versions of repositories, which pages and feeds
// show.
package versions
