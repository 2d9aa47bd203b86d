package config

import (
	"errors"
	"reflect"
)

// Parse parses the `options:` of a middleware entry, from the registry's YAML or its
// environment variables. The error joins one *Error for each mistake.
func Parse(raw map[string]any) (*Options, error) {
	o, m := parse(raw)
	if err := m.err(); err != nil {
		return nil, err
	}
	return o, nil
}

func parse(raw map[string]any) (*Options, *mistakes) {
	o, m := defaults(), &mistakes{}
	m.decodeStruct("options", reflect.ValueOf(o).Elem(), raw)
	m.oneWriter(raw)
	o.check(m)
	return o, m
}

// Error is a mistake in the options.
type Error struct {
	Path string // "options.hold.hostname"
	Text string // what is invalid, and what is valid
}

func (e *Error) Error() string { return e.Path + ": " + e.Text }

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
	m.excuse(path)
	m.list = append(m.list, &Error{path, text})
}

// excuse ignores later mistakes at path.
func (m *mistakes) excuse(path string) {
	if m.at == nil {
		m.at = map[string]bool{}
	}
	m.at[path] = true
}

func (m *mistakes) err() error { return errors.Join(m.list...) }
