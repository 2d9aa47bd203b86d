package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// A value comes from YAML, or from an environment variable that was parsed as YAML. A
// string option may therefore have a number, and a list option a single string. Values
// that are unambiguous are accepted; all others are errors.

func (m *mistakes) decodeStruct(path string, v reflect.Value, raw any) {
	given, ok := m.section(path, raw)
	if !ok {
		return
	}
	known := fields(v.Type())
	m.joinSplitNames(given, known)
	for _, key := range slices.Sorted(maps.Keys(given)) {
		i, ok := known[key]
		if !ok {
			m.unknown(path, key, v.Type())
			continue
		}
		m.decode(path+"."+key, v.Field(i), given[key])
	}
}

func (m *mistakes) decode(path string, v reflect.Value, raw any) {
	if raw == nil {
		m.add(path, empty(v))
		return
	}
	if !m.decodeType(path, v, raw) {
		m.decodeKind(path, v, raw)
	}
}

// decodeType decodes a value whose type has a form of its own, and reports whether it is
// decoded or a mistake. Otherwise decodeKind decodes it.
func (m *mistakes) decodeType(path string, v reflect.Value, raw any) (done bool) {
	switch target := v.Addr().Interface().(type) {
	case **Redis:
		text, isText := raw.(string)
		if raw == "inherit" {
			*target = &Redis{Inherit: true, Name: defaultName}
		} else if isText {
			m.add(path, fmt.Sprintf(`%q is neither "inherit", for the registry's own redis section, nor a section with addrs`, text))
		}
		return isText
	case **Publication:
		p, section := m.decodePublication(path, raw)
		if !section {
			*target = p
		}
		return !section
	case *time.Duration:
		d, err := duration(raw)
		m.set(path, v, time.Duration(d), err)
	case *Size:
		s, err := size(raw)
		m.set(path, v, s, err)
	case *DurationOrOff:
		d, err := durationOrOff(raw)
		m.set(path, v, d, err)
	case *PointsOrOff:
		p, err := pointsOrOff(raw)
		m.set(path, v, p, err)
	case *AddressOrOff:
		a, err := addressOrOff(raw)
		m.set(path, v, a, err)
	case *map[string]Tier:
		*target = m.tierMap(path, raw)
	case *[]QuotaOwner:
		*target = m.quotaOwners(path, raw)
	case *[]string:
		*target = m.texts(path, raw)
	default:
		return false
	}
	return true
}

// decodeKind decodes a section, a list of sections, or a plain value.
func (m *mistakes) decodeKind(path string, v reflect.Value, raw any) {
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if d, ok := p.Interface().(interface{ defaults() }); ok {
			d.defaults()
		}
		m.decodeStruct(path, p.Elem(), raw)
		if !m.at[path] {
			v.Set(p)
		}
	case reflect.Struct:
		m.decodeStruct(path, v, raw)
	case reflect.Slice:
		m.decodeList(path, v, raw)
	case reflect.Bool:
		b, err := boolean(raw)
		m.set(path, v, b, err)
	case reflect.Int:
		n, err := integer(raw)
		m.set(path, v, n, err)
	case reflect.String:
		s, err := text(raw)
		m.set(path, v, s, err)
	default:
		panic("config: unsupported type " + v.Type().String())
	}
}

// decodeList decodes a list of sections.
func (m *mistakes) decodeList(path string, v reflect.Value, raw any) {
	list := reflect.ValueOf(raw)
	if list.Kind() != reflect.Slice {
		m.add(path, fmt.Sprintf("is %s, but must be a list of sections", kind(raw)))
		return
	}
	out := reflect.MakeSlice(v.Type(), list.Len(), list.Len())
	for i := range list.Len() {
		m.decode(fmt.Sprintf("%s[%d]", path, i), out.Index(i), list.Index(i).Interface())
	}
	v.Set(out)
}

func (m *mistakes) set(path string, v reflect.Value, value any, err error) {
	if err != nil {
		m.add(path, err.Error())
		return
	}
	v.Set(reflect.ValueOf(value))
}

// section returns a map from YAML or from the environment.
func (m *mistakes) section(path string, raw any) (map[string]any, bool) {
	v := reflect.ValueOf(raw)
	if !v.IsValid() {
		return nil, true
	}
	if v.Kind() != reflect.Map {
		m.add(path, fmt.Sprintf("is %s, but must be a section with options", kind(raw)))
		return nil, false
	}
	given := make(map[string]any, v.Len())
	for it := v.MapRange(); it.Next(); {
		key, ok := it.Key().Interface().(string)
		if !ok {
			m.add(fmt.Sprintf("%s.%v", path, it.Key()), "unknown option; option names are strings")
			continue
		}
		given[key] = it.Value().Interface()
	}
	return given, true
}

// joinSplitNames joins names that the registry has split: it parses the environment
// variable …_OPTIONS_HOLD_KEY_FILE as hold: {key: {file: …}}.
func (m *mistakes) joinSplitNames(given map[string]any, known map[string]int) {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		inner := reflect.ValueOf(given[key])
		if _, ok := known[key]; ok || inner.Kind() != reflect.Map {
			continue
		}
		joined := map[string]any{}
		flatten(key, inner, known, joined)
		for name := range joined {
			if _, ok := known[name]; !ok {
				joined = nil
				break
			}
		}
		if len(joined) > 0 {
			delete(given, key)
			maps.Copy(given, joined)
		}
	}
}

func flatten(prefix string, v reflect.Value, known map[string]int, into map[string]any) {
	for it := v.MapRange(); it.Next(); {
		name, value := fmt.Sprintf("%s_%v", prefix, it.Key()), reflect.ValueOf(it.Value().Interface())
		if _, ok := known[name]; !ok && value.Kind() == reflect.Map {
			flatten(name, value, known, into)
			continue
		}
		into[name] = it.Value().Interface()
	}
}

func (m *mistakes) texts(path string, raw any) []string {
	v := reflect.ValueOf(raw)
	if v.Kind() != reflect.Slice {
		one, err := text(raw)
		if err != nil {
			m.add(path, fmt.Sprintf("is %s, but must be a list of strings", kind(raw)))
			return nil
		}
		return []string{one}
	}
	out := make([]string, 0, v.Len())
	for i := range v.Len() {
		one, err := text(v.Index(i).Interface())
		if err != nil {
			m.add(fmt.Sprintf("%s[%d]", path, i), err.Error())
			continue
		}
		out = append(out, one)
	}
	return out
}

func text(raw any) (string, error) {
	switch v := raw.(type) {
	case string:
		return v, nil
	case int, int64, uint64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("is %s, but must be a string; use quotes", kind(raw))
}

func boolean(raw any) (bool, error) {
	switch v := raw.(type) {
	case bool:
		return v, nil
	case string:
		if v == "true" || v == "false" {
			return v == "true", nil
		}
	}
	return false, fmt.Errorf("is %s, but must be true or false", kind(raw))
}

func integer(raw any) (int, error) {
	switch v := raw.(type) {
	case int:
		return v, nil
	case string:
		if n, err := strconv.Atoi(v); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("is %s, but must be an integer", kind(raw))
}

func duration(raw any) (time.Duration, error) {
	switch v := raw.(type) {
	case int:
		if v == 0 {
			return 0, nil
		}
		return 0, fmt.Errorf(`%d has no unit; use a duration like "20s", "10m" or "1h"`, v)
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			return 0, fmt.Errorf(`%q is an invalid duration; use a number and a unit, like "20s", "10m" or "1h"`, v)
		}
		if d < 0 {
			return 0, fmt.Errorf("%s is negative", v)
		}
		return d, nil
	}
	return 0, fmt.Errorf(`is %s, but must be a duration like "20s", "10m" or "1h"`, kind(raw))
}

func size(raw any) (Size, error) {
	s, err := text(raw)
	if err != nil {
		return 0, fmt.Errorf(`is %s, but must be a size like "16MiB" or "5GB"`, kind(raw))
	}
	n, err := parseSize(s)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	return n, nil
}

// kind describes a value in terms of YAML.
func kind(raw any) string {
	switch v := raw.(type) {
	case nil:
		return "nothing"
	case string:
		return strconv.Quote(v)
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v)
	case time.Time:
		return "a date"
	}
	switch reflect.ValueOf(raw).Kind() {
	case reflect.Map:
		return "a section"
	case reflect.Slice:
		return "a list"
	}
	return fmt.Sprintf("a %T", raw)
}

func empty(v reflect.Value) string {
	if v.Type() == reflect.TypeFor[*Announce]() {
		return "has no value; write `announce: {}` to use the defaults, or remove the line"
	}
	return "has no value; set one or remove the line"
}

// fields returns the indexes of a struct's options by name.
func fields(t reflect.Type) map[string]int {
	known := map[string]int{}
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("option"); name != "" {
			known[name] = i
		}
	}
	return known
}

func names(t reflect.Type) []string {
	return slices.Sorted(maps.Keys(fields(t)))
}
