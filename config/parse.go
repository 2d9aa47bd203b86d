package config

import (
	"errors"
	"reflect"
)

// parse parses the `options:` of a middleware entry, from the registry's YAML or its
// environment variables.
func parse(raw map[string]any) (*Options, *mistakes) {
	o, m := defaults(), &mistakes{}
	m.decodeStruct("options", reflect.ValueOf(o).Elem(), raw)
	m.oneWriter(raw)
	o.check(m)
	o.checkRemote(m, raw)
	return o, m
}

// mistake is an error in the options.
type mistake struct {
	path string // "options.hold.hostname"
	text string // the problem, and a valid value
}

func (e *mistake) Error() string { return e.path + ": " + e.text }

// mistakes collects errors, at most one for each path: an option that could not be
// parsed is not reported as missing as well.
type mistakes struct {
	list []error
	at   map[string]bool
}

func (m *mistakes) add(path, text string) {
	if m.at[path] {
		return
	}
	m.ignore(path)
	m.list = append(m.list, &mistake{path, text})
}

// ignore ignores later mistakes at path.
func (m *mistakes) ignore(path string) {
	if m.at == nil {
		m.at = map[string]bool{}
	}
	m.at[path] = true
}

func (m *mistakes) err() error { return errors.Join(m.list...) }
