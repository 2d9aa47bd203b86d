package post

import (
	"regexp"
	"slices"
	"strings"
)

// What a platform may be made of: the names of Go, as the OCI image specification
// wants it, and wasi, under which Docker runs WebAssembly. An index can claim
// anything in these members, and anything else would be a stranger's text.
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

// Platform is how a platform is written, such as "linux/arm/v7"; empty if it is
// none that is known. A variant that is not known is left out.
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

// ParsePlatform is Platform of a platform that is written already.
func ParsePlatform(name string) string {
	system, rest, _ := strings.Cut(name, "/")
	architecture, of, _ := strings.Cut(rest, "/")
	return Platform(system, architecture, of)
}
