package lexicon

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/lexicon"
)

// indigo parses schemas and validates single values. Objects, arrays and unions are
// validated here, because indigo supports this for records only and does not report the
// position of an error.

// check validates a value against a definition in the document base.
func (c catalog) check(def any, base string, value any, path string) error {
	switch def := def.(type) {
	case lexicon.SchemaObject:
		return c.checkObject(def, base, value, path)
	case lexicon.SchemaArray:
		return c.checkArray(def, base, value, path)
	case lexicon.SchemaRef:
		next, nsid, ok := c.resolve(def.Ref, base)
		if !ok {
			return fmt.Errorf("no schema for %s at %s", def.Ref, path)
		}
		return c.check(next, nsid, value, path)
	case lexicon.SchemaUnion:
		return c.checkUnion(def, base, value, path)
	case lexicon.SchemaBlob:
		return checkBlob(def, value, path)
	case lexicon.SchemaString:
		return checkString(def, value, path)
	case lexicon.SchemaBoolean:
		return at(path, def.Validate(value))
	case lexicon.SchemaInteger:
		return at(path, def.Validate(value))
	case lexicon.SchemaBytes:
		return at(path, def.Validate(value))
	case lexicon.SchemaCIDLink:
		return at(path, def.Validate(value))
	case lexicon.SchemaUnknown:
		return at(path, def.Validate(value))
	default:
		return fmt.Errorf("schema of type %T does not describe data at %s", def, path)
	}
}

func at(path string, err error) error {
	if err != nil {
		return fmt.Errorf("%w at %s", err, path)
	}
	return nil
}

func (c catalog) checkObject(def lexicon.SchemaObject, base string, value any, path string) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("expected an object at %s", path)
	}
	for _, key := range def.Required {
		if _, ok := object[key]; !ok {
			return fmt.Errorf("missing required key %q at %s", key, path)
		}
	}
	// In a fixed order, so that the same input gets the same error.
	for key, value := range sorted(object) {
		property, ok := def.Properties[key]
		if !ok || value == nil && slices.Contains(def.Nullable, key) {
			continue
		}
		if err := c.check(property.Inner, base, value, path+"."+key); err != nil {
			return err
		}
	}
	return nil
}

func (c catalog) checkArray(def lexicon.SchemaArray, base string, value any, path string) error {
	list, ok := value.([]any)
	if !ok {
		return fmt.Errorf("expected an array at %s", path)
	}
	if def.MaxLength != nil && len(list) > *def.MaxLength {
		return fmt.Errorf("array too big (maximum %d, got %d) at %s", *def.MaxLength, len(list), path)
	}
	if def.MinLength != nil && len(list) < *def.MinLength {
		return fmt.Errorf("array too small (minimum %d, got %d) at %s", *def.MinLength, len(list), path)
	}
	for i, item := range list {
		if err := c.check(def.Items.Inner, base, item, path+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
	return nil
}

// checkUnion validates a value against the member that its $type names. An open union
// also allows any other object.
func (c catalog) checkUnion(def lexicon.SchemaUnion, base string, value any, path string) error {
	object, _ := value.(map[string]any)
	name, ok := object["$type"].(string)
	if !ok {
		return fmt.Errorf(`expected an object with a "$type" at %s`, path)
	}
	for _, ref := range def.Refs {
		if member, nsid, ok := c.resolve(ref, base); ok && named(name, ref, base) {
			return c.check(member, nsid, value, path)
		}
	}
	if def.Closed != nil && *def.Closed {
		return fmt.Errorf("unexpected $type %.80q at %s", name, path)
	}
	return nil
}

// named reports whether the $type name refers to ref in the document base.
func named(name, ref, base string) bool {
	if ref[0] == '#' {
		ref = base + ref
	}
	return name == ref || name == ref+"#main"
}

func checkBlob(def lexicon.SchemaBlob, value any, path string) error {
	object, _ := value.(map[string]any)
	blob, ok := asBlob(object)
	if !ok {
		return fmt.Errorf("expected a blob at %s", path)
	}
	return at(path, def.Validate(blob, 0))
}

func checkString(def lexicon.SchemaString, value any, path string) error {
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("expected a string at %s", path)
	}
	if def.MaxLength != nil && len(text) > *def.MaxLength {
		return fmt.Errorf("string too big (maximum %d, got %d) at %s", *def.MaxLength, len(text), path)
	}
	if def.MaxGraphemes != nil && len(text) > *def.MaxGraphemes {
		if n := Graphemes(text); n > *def.MaxGraphemes {
			return fmt.Errorf("grapheme too big (maximum %d, got %d) at %s", *def.MaxGraphemes, n, path)
		}
	}
	if def.MinGraphemes != nil {
		if n := Graphemes(text); n < *def.MinGraphemes {
			return fmt.Errorf("grapheme too small (minimum %d, got %d) at %s", *def.MinGraphemes, n, path)
		}
	}
	def.MaxGraphemes, def.MinGraphemes = nil, nil // checked above
	if def.Format != nil {
		if err := CheckFormat(*def.Format, text); err != nil {
			return at(path, err)
		}
		def.Format = nil
	}
	return at(path, def.Validate(text, 0))
}
