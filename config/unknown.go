package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// otherWriters are sections that say who writes the records, as hold does, and
// that this version does not have.
var otherWriters = []string{"account", "remote"}

// oneWriter refuses a second writer, whichever two they are.
func (m *mistakes) oneWriter(given map[string]any) {
	var writers []string
	for _, name := range append(otherWriters, "hold") {
		if _, ok := given[name]; ok {
			writers = append(writers, name)
		}
	}
	if len(writers) > 1 {
		m.add("options", strings.Join(writers, " and ")+" are writers, and exactly one writer is allowed")
	}
}

// unknown says what is wrong with a key that is no option of t: a secret, a
// writer that this version does not have, or a slip of the pen.
func (m *mistakes) unknown(path, key string, t reflect.Type) {
	at := path + "." + key
	if path == "options" && slices.Contains(otherWriters, key) {
		m.add(at, "this version writes with hold only: the repository embedded in the registry; give hold instead")
		return
	}
	if near := nearest(key, names(t)); near != "" && !isSecret(key) {
		m.add(at, fmt.Sprintf("unknown option; did you mean %s?", near))
		m.excuse(path + "." + near)
		return
	}
	if isSecret(key) {
		m.add(at, secret(key, t))
		return
	}
	if place := elsewhere(key, t); place != "" {
		m.add(at, fmt.Sprintf("unknown option here; did you mean %s?", place))
		return
	}
	m.add(at, fmt.Sprintf("unknown option; known here: %s", strings.Join(names(t), ", ")))
}

// secret says where a secret goes. The registry prints its whole configuration
// at /debug/vars, so it never goes into the options.
func secret(key string, t reflect.Type) string {
	const never = "a secret is never written here, because the registry shows its configuration at /debug/vars; "
	key = strings.ToLower(key)
	for _, word := range secretWords {
		if distance(key, word) == 1 || key == "passwd" {
			key = word
			break
		}
	}
	if t == reflect.TypeFor[Hold]() && strings.HasSuffix(key, "password") {
		return never + "`tidings hold password` makes one and stores its hash"
	}
	want := key + "_file"
	known := names(t)
	if slices.Contains(known, want) {
		return never + "put it into a file and name that with " + want
	}
	for _, name := range known {
		if strings.HasSuffix(name, "_file") && (strings.HasSuffix(want, "_"+name) || strings.HasSuffix(name, "_"+want)) {
			return never + "put it into a file and name that with " + name
		}
	}
	return never + "secrets are files that a *_file option names, and there is none for this"
}

// elsewhere is the one other section that has an option of this name.
func elsewhere(key string, t reflect.Type) string {
	if slices.Contains(names(reflect.TypeFor[Options]()), key) {
		return "options." + key
	}
	var found []string
	all := sections()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] != t && slices.Contains(names(all[name]), key) {
			found = append(found, "options."+name+"."+key)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return ""
}

// nearest is the known name that key is a misspelling of, or nothing.
func nearest(key string, known []string) string {
	best, far := "", max(1, len(key)/3)+1
	for _, name := range known {
		if d := distance(plain(key), plain(name)); d < far {
			best, far = name, d
		}
	}
	return best
}

// plain leaves out what people write differently: keyFile, key-file, key_file.
func plain(name string) string {
	return strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(name))
}

// distance is how many letters are to be changed, added, dropped or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// sections is the types of Options' sections by their names.
func sections() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	t := reflect.TypeFor[Options]()
	for name, i := range fields(t) {
		ft := t.Field(i).Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			out[name] = ft
		}
	}
	return out
}

var secretWords = []string{"password", "passwd", "secret", "token"}

// isSecret says whether a name is one that people give to a secret itself.
func isSecret(key string) bool {
	key = strings.ToLower(key)
	if strings.HasSuffix(key, "_key") || key == "key" {
		return true
	}
	for _, word := range secretWords {
		if strings.HasSuffix(key, word) || distance(key, word) == 1 {
			return true
		}
	}
	return false
}
