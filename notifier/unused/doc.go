// Package unused finds the tags and manifests of the registry's storage that were not used
// for a time, and what garbage collection would free without them. It changes nothing.
package unused
