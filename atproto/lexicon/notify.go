package lexicon

// Operations of io.atcr.hold.notifyManifest. An empty operation is a push.
const (
	OperationPush = "push"
	OperationPull = "pull"
)

// Visibilities of a pushed manifest. An empty visibility is public.
const (
	VisibilityPublic  = "public"
	VisibilityPrivate = "private"
)

// Error names that io.atcr.hold.notifyManifest declares.
const (
	ErrorInvalidOperation = "InvalidOperation"
	ErrorUserMismatch     = "UserMismatch"
	ErrorQuotaExceeded    = "QuotaExceeded"
)

// NotifyManifestInput is the input of io.atcr.hold.notifyManifest: a manifest
// was pushed or pulled.
type NotifyManifestInput struct {
	Repository     string       `json:"repository"`           // at most 256 bytes
	Tag            string       `json:"tag,omitempty"`        // at most 128 bytes; without one there is no post
	UserDID        string       `json:"userDid"`              // the image's owner
	ManifestDigest string       `json:"manifestDigest"`       // "sha256:…", at most 128 bytes
	Operation      string       `json:"operation,omitempty"`  // OperationPush or OperationPull
	Visibility     string       `json:"visibility,omitempty"` // of a push: VisibilityPublic, VisibilityPrivate, or another of at most 16 bytes
	Manifest       ManifestInfo `json:"manifest"`
}

// NotifyManifestOutput is the output of io.atcr.hold.notifyManifest. Pointers are nil
// for a pull, and while the value is unknown.
type NotifyManifestOutput struct {
	Success       bool   `json:"success"`
	Operation     string `json:"operation"`
	StatsUpdated  bool   `json:"statsUpdated"`
	LayersCreated *int   `json:"layersCreated,omitempty"`
	PostCreated   *bool  `json:"postCreated,omitempty"`
	PostURI       string `json:"postUri,omitempty"`
}

// ManifestInfo describes a manifest: config and layers of an image, manifests of an
// index, and artifactType or subject of an artifact. No member is required.
type ManifestInfo struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Config       *Descriptor       `json:"config,omitempty"`
	Layers       []Descriptor      `json:"layers,omitempty"`
	Manifests    []Descriptor      `json:"manifests,omitempty"`
	Subject      *Descriptor       `json:"subject,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Descriptor is an OCI descriptor: it refers to a blob or to another manifest. In a
// notification no member is required, and the digest and size may be invalid.
type Descriptor struct {
	MediaType    string            `json:"mediaType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`           // bytes
	URLs         []string          `json:"urls,omitempty"` // of a foreign layer, which the registry does not store
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Platform is the platform of an image in an index.
type Platform struct {
	OS           string `json:"os,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}
