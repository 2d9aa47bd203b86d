package middleware

import "runtime/debug"

// ownVersion returns the version of Tidings in this binary; empty if the build
// information does not have it.
func ownVersion() string {
	const path = "github.com/tidings-dev/tidings"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range append(info.Deps, &info.Main) {
		if module.Path == path {
			return module.Version
		}
	}
	return ""
}
