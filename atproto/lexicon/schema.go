package lexicon

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/lexicon"
)

//go:embed schemas
var files embed.FS

// catalog holds definitions by their full name, "nsid#name".
type catalog map[string]any

// schemas are the embedded definitions. They are parsed when the first one is
// needed.
var schemas = sync.OnceValue(func() catalog {
	defs, err := load(files)
	if err != nil {
		panic(err) // the files are compiled in, and a test loads them
	}
	return defs
})

func load(files fs.FS) (catalog, error) {
	defs := catalog{}
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".json") {
			return err
		}
		raw, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		var file lexicon.SchemaFile
		if err := json.Unmarshal(raw, &file); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := file.FinishParse(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := file.CheckSchema(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for name, def := range file.Defs {
			defs[file.ID+"#"+name] = def.Inner
		}
		return nil
	})
	return defs, err
}

// resolve finds the definition of a reference in the document base: "#name", "nsid" or
// "nsid#name". It also returns the document of the definition.
func (c catalog) resolve(ref, base string) (def any, nsid string, ok bool) {
	nsid, name, _ := strings.Cut(ref, "#")
	if nsid == "" {
		nsid = base
	}
	if name == "" {
		name = "main"
	}
	def, ok = c[nsid+"#"+name]
	return def, nsid, ok
}
