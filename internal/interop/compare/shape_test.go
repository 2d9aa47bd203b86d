package compare

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// verbatim are members whose values are part of the shape, because they do not depend on
// the account, the server or the time.
var verbatim = []string{"$type", "validationStatus", "active", "status", "value", "error"}

// shape returns a line for each member of a JSON body: its path and type.
func shape(v any) []string { return shapeOf(v, verbatim) }

func shapeOf(v any, verbatim []string) []string {
	s := shaper{verbatim, map[string]bool{}}
	s.add("$", v, false)
	return slices.Sorted(maps.Keys(s.lines))
}

type shaper struct {
	verbatim []string
	lines    map[string]bool
}

func (s shaper) add(path string, v any, exact bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			s.add(path+"."+name, value, exact || slices.Contains(s.verbatim, name))
		}
		if len(v) == 0 {
			s.lines[path+" {}"] = true
		}
	case []any:
		for _, value := range v {
			s.add(path+"[]", value, exact)
		}
		if len(v) == 0 {
			s.lines[path+" []"] = true
		}
	default:
		kind := map[bool]string{true: text(v), false: kindOf(v)}[exact]
		s.lines[path+" "+kind] = true
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case json.Number, float64:
		return "number"
	case bool:
		return "bool"
	}
	return "null"
}

// without removes the lines whose path is one of the words of members, or below one.
func without(lines []string, members string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		path, _, _ := strings.Cut(line, " ")
		for _, m := range strings.Fields(members) {
			if rest, found := strings.CutPrefix(path, m); found && (rest == "" || rest[0] == '.' || rest[0] == '[') {
				return true
			}
		}
		return false
	})
}
