package middleware

import "runtime/debug"

// ownVersion is the version of Tidings in this binary, whoever's it is; empty
// if the build has not recorded it.
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
