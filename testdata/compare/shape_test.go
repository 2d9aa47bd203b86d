package compare

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// verbatim are members whose value is part of the shape: it does not depend on
// the account, the server or the time.
var verbatim = []string{"$type", "validationStatus", "active", "status", "value", "error", "seq"}

// shape is what a body of JSON has, a line a member: its path and its type.
func shape(v any) []string {
	lines := map[string]bool{}
	addShape(lines, "$", v, false)
	return slices.Sorted(maps.Keys(lines))
}

func addShape(lines map[string]bool, path string, v any, exact bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			addShape(lines, path+"."+name, value, exact || slices.Contains(verbatim, name))
		}
		if len(v) == 0 {
			lines[path+" {}"] = true
		}
	case []any:
		for _, value := range v {
			addShape(lines, path+"[]", value, exact)
		}
		if len(v) == 0 {
			lines[path+" []"] = true
		}
	default:
		kind := map[bool]string{true: text(v), false: kindOf(v)}[exact]
		lines[path+" "+kind] = true
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "bool"
	}
	return "null"
}

// without takes away the lines whose path is, or is below, one of the words
// of members.
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
