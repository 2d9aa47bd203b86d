package post

import (
	"regexp"
	"slices"
	"strings"
)

// The valid parts of a platform: the names that Go uses, as the OCI image
// specification requires, and wasi, which Docker uses for WebAssembly. Other
// values are text that the client chose, and must not appear in a post.
var (
	systems = []string{
		"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9",
		"solaris", "wasi", "wasip1", "windows",
	}
	architectures = []string{
		"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
		"s390x", "sparc64", "wasm",
	}
	variant = regexp.MustCompile(`^v[0-9]{1,2}(\.[0-9])?$`)
)

// Platform formats a platform, such as "linux/arm/v7"; the result is empty if the
// platform is unknown. An unknown variant is omitted.
func Platform(system, architecture, of string) string {
	if !slices.Contains(systems, system) || !slices.Contains(architectures, architecture) {
		return ""
	}
	name := system + "/" + architecture
	if len(of) < 8 && variant.MatchString(of) {
		name += "/" + of
	}
	return name
}

// ParsePlatform parses and formats a platform such as "linux/arm/v7", like Platform.
func ParsePlatform(name string) string {
	system, rest, _ := strings.Cut(name, "/")
	architecture, of, _ := strings.Cut(rest, "/")
	return Platform(system, architecture, of)
}
