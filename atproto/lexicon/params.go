package lexicon

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/lexicon"
)

var errManyValues = errors.New("given more than once")

// Params parses the query string of a method and validates it against the schema. It
// returns bool, int64, string or []any by name, with defaults. Names that are not in the
// schema are ignored. An empty value counts as absent, as in the reference
// implementation, because generated clients send them.
func Params(nsid string, query url.Values) (map[string]any, error) {
	params, err := paramsOf(nsid)
	if err != nil || params == nil {
		return map[string]any{}, err
	}
	values := map[string]any{}
	for name, def := range params.Properties {
		value, err := param(def.Inner, nonEmpty(query[name]))
		if err != nil {
			return nil, fmt.Errorf("%w at $.%s", err, name)
		}
		if value == nil {
			continue
		}
		if err := schemas().check(def.Inner, nsid, value, "$."+name); err != nil {
			return nil, err
		}
		values[name] = value
	}
	for _, name := range params.Required {
		if _, ok := values[name]; !ok {
			return nil, fmt.Errorf("missing required key %q", name)
		}
	}
	return values, nil
}

func nonEmpty(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" })
}

func paramsOf(nsid string) (*lexicon.SchemaParams, error) {
	switch def := schemas()[nsid+"#main"].(type) {
	case lexicon.SchemaQuery:
		return def.Parameters, nil
	case lexicon.SchemaProcedure:
		return def.Parameters, nil
	case lexicon.SchemaSubscription:
		return def.Parameters, nil
	}
	return nil, fmt.Errorf("no schema for %s", nsid)
}

// param parses one parameter; nil means that it is absent and has no default.
func param(def any, values []string) (any, error) {
	if array, ok := def.(lexicon.SchemaArray); ok {
		return paramList(array, values)
	}
	if len(values) > 1 {
		return nil, errManyValues
	}
	switch def := def.(type) {
	case lexicon.SchemaBoolean:
		if len(values) == 0 {
			return orDefault(def.Default), nil
		}
		switch values[0] {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("expected true or false (got %.80q)", values[0])
	case lexicon.SchemaInteger:
		if len(values) == 0 {
			if def.Default == nil {
				return nil, nil
			}
			return int64(*def.Default), nil
		}
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("expected an integer (got %.80q)", values[0])
		}
		return n, nil
	case lexicon.SchemaString:
		if len(values) == 0 {
			return orDefault(def.Default), nil
		}
		return values[0], nil
	}
	return nil, fmt.Errorf("parameters of type %T are not supported", def)
}

func orDefault[T any](value *T) any {
	if value == nil {
		return nil
	}
	return *value
}

func paramList(array lexicon.SchemaArray, values []string) (any, error) {
	if len(values) == 0 {
		return nil, nil
	}
	list := make([]any, len(values))
	for i := range values {
		value, err := param(array.Items.Inner, values[i:i+1])
		if err != nil {
			return nil, err
		}
		list[i] = value
	}
	return list, nil
}
