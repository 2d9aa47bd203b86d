package config

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
)

// The configurations in the README are valid, and they show every option.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for i, part := range strings.Split(string(readme), "```yaml\n")[1:] {
		section, _, _ := strings.Cut(part, "```")
		all += section
		file := "version: 0.1\nstorage: inmemory\nhttp: {addr: 127.0.0.1:5000}\nauth: {htpasswd: {realm: r, path: /p}}\n" + section
		parsed, err := configuration.Parse(strings.NewReader(file))
		if err != nil {
			t.Fatalf("section %d: %v", i, err)
		}
		if _, found, err := FromRegistry(parsed); err != nil || !found {
			t.Errorf("section %d: found %v, %v", i, found, err)
		}
	}
	for _, name := range optionNames(reflect.TypeFor[Options]()) {
		if !strings.Contains(all, name+":") {
			t.Errorf("the README does not show %s", name)
		}
	}
}

// optionNames lists the options of a struct and of the sections in it.
func optionNames(of reflect.Type) []string {
	var all []string
	for name, i := range fields(of) {
		all = append(all, name)
		section := of.Field(i).Type
		if section.Kind() == reflect.Pointer || section.Kind() == reflect.Slice {
			section = section.Elem()
		}
		if section.Kind() == reflect.Struct {
			all = append(all, optionNames(section)...)
		}
	}
	return all
}
