package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// writers are the sections that select a writer of records.
var writers = []string{"account", "hold", "remote"}

// oneWriter refuses more than one writer.
func (m *mistakes) oneWriter(given map[string]any) {
	found := slices.DeleteFunc(slices.Clone(writers), func(name string) bool {
		_, ok := given[name]
		return !ok
	})
	if len(found) > 1 {
		m.add("options", strings.Join(found, " and ")+" are sections of accounts; only one of them is allowed")
	}
}

// unknown reports a key that is not an option of t: a secret, a misspelled option, or one of another section.
func (m *mistakes) unknown(path, key string, t reflect.Type) {
	at := path + "." + key
	if near := nearest(key, names(t)); near != "" && !isSecret(key) {
		m.add(at, fmt.Sprintf("unknown option; did you mean %s?", near))
		m.ignore(path + "." + near)
		return
	}
	if isSecret(key) {
		m.add(at, secret(key, t))
		return
	}
	if other := elsewhere(key, t); other != "" {
		m.add(at, fmt.Sprintf("unknown option here; did you mean %s?", other))
		return
	}
	m.add(at, fmt.Sprintf("unknown option; known options: %s", strings.Join(names(t), ", ")))
}

// entryKeys are the keys of a middleware entry.
var entryKeys = []string{"disabled", "name", "options"}

// CheckKeys returns an error for the unknown keys of our entry in a configuration file. The
// registry's parser ignores them. It reports a file that is not YAML.
func CheckKeys(file []byte) error {
	var c struct {
		Middleware struct{ Repository []map[string]any }
	}
	_ = yaml.Unmarshal(file, &c)
	m := &mistakes{}
	for i, entry := range c.Middleware.Repository {
		if name, ok := entry["name"]; ok && name != Name {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(entry)) {
			m.entryKey(fmt.Sprintf("middleware.repository[%d].%s", i, key), key)
		}
	}
	return m.err()
}

// entryKey reports a key that is not one of a middleware entry.
func (m *mistakes) entryKey(path, key string) {
	switch {
	case slices.Contains(entryKeys, key):
	case slices.Contains(names(reflect.TypeFor[Options]()), key):
		m.add(path, fmt.Sprintf("unknown key; did you mean options.%s?", key))
	case nearest(key, entryKeys) != "":
		m.add(path, fmt.Sprintf("unknown key; did you mean %s?", nearest(key, entryKeys)))
	default:
		m.add(path, "unknown key; known keys: "+strings.Join(entryKeys, ", "))
	}
}

// secret returns the error for a secret in the options, which the registry would
// show at /debug/vars, and names the option to use.
func secret(key string, t reflect.Type) string {
	const never = "secrets are not allowed here, since the registry shows its configuration at /debug/vars; "
	key = strings.ToLower(key)
	for _, word := range secretWords {
		if distance(key, word) == 1 || key == "passwd" {
			key = word
			break
		}
	}
	if t == reflect.TypeFor[Hold]() && strings.HasSuffix(key, "password") {
		return never + "`tidings hold password` creates one and stores its hash"
	}
	want := key + "_file"
	known := names(t)
	if slices.Contains(known, want) {
		return never + "write it to a file and set " + want
	}
	for _, name := range known {
		if strings.HasSuffix(name, "_file") && (strings.HasSuffix(want, "_"+name) || strings.HasSuffix(name, "_"+want)) {
			return never + "write it to a file and set " + name
		}
	}
	return never + "secrets are in files that *_file options name, and there is no such option for this"
}

// elsewhere returns the path of an option of this name in another section; empty if
// there is none, or more than one.
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

// nearest returns the known name of which key is a misspelling; empty if there is none.
func nearest(key string, known []string) string {
	best, far := "", max(1, len(key)/3)+1
	for _, name := range known {
		if d := distance(plain(key), plain(name)); d < far {
			best, far = name, d
		}
	}
	return best
}

// plain removes differences in style: keyFile, key-file, key_file.
func plain(name string) string {
	return strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(name))
}

// distance is the number of letters to change, add, remove or swap with their
// neighbour to turn a into b (optimal string alignment).
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

// sections returns the types of the sections of Options by name.
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

// isSecret reports whether a name is one for a secret itself.
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
