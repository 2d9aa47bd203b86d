package notifier

import v1 "github.com/opencontainers/image-spec/specs-go/v1"

// Push is a manifest that the registry is about to store.
type Push struct {
	Repository string
	Tag        string // empty when pushed by digest
	Digest     string // "sha256:…"
	MediaType  string
	Payload    []byte   // the manifest's exact bytes; not changed by anybody
	Layers     int      // that it lists, as often as it does
	Children   []string // digests that an index lists
	Actor      string   // who authenticated to the registry; empty when nobody did
	RequestID  string
	Client     string // the client's address; kept only as a keyed hash, for seconds
	UserAgent  string
}

// Pull is an answer to a GET or HEAD of a manifest that is about to go out
// with status 200. Everything in it is at hand without parsing.
type Pull struct {
	Method          string // GET or HEAD
	Repository      string
	Tag             string // empty when asked for by digest
	Digest          string // of what was asked for: the index, when a client that does not know lists got its child
	MediaType       string // of what Digest names
	ConfigMediaType string
	Layers          []v1.Descriptor // of an image; not changed by anybody
	Children        []string        // digests that an index lists
	Actor           string
	Client          string // the client's address; kept only as a keyed hash, for seconds
	UserAgent       string
}

// Delete is a manifest (Tag empty) or a tag (Tag set) that the registry is about
// to remove.
type Delete struct {
	Repository string
	Tag        string
	Digest     string // of the deleted manifest; empty when a tag was removed
	Actor      string
	RequestID  string
}
