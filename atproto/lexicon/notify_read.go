package lexicon

// ReadNotifyManifest converts the result of Input. Unknown members are ignored. Members
// of an OCI manifest that the published schema does not have, such as the artifactType,
// may be anything: they are read if they have OCI's type, and ignored otherwise.
// Annotations are never read.
func ReadNotifyManifest(input map[string]any) NotifyManifestInput {
	manifest := member[map[string]any](input, "manifest")
	return NotifyManifestInput{
		Repository:     member[string](input, "repository"),
		Tag:            member[string](input, "tag"),
		UserDID:        member[string](input, "userDid"),
		ManifestDigest: member[string](input, "manifestDigest"),
		Operation:      member[string](input, "operation"),
		Visibility:     member[string](input, "visibility"),
		Manifest: ManifestInfo{
			MediaType:    member[string](manifest, "mediaType"),
			ArtifactType: member[string](manifest, "artifactType"),
			Config:       optional(manifest, "config", readDescriptor),
			Layers:       readDescriptors(manifest, "layers"),
			Manifests:    readDescriptors(manifest, "manifests"),
			Subject:      optional(manifest, "subject", readDescriptor),
		},
	}
}

func readDescriptors(object map[string]any, name string) []Descriptor {
	var list []Descriptor
	for _, item := range member[[]any](object, name) {
		d, _ := item.(map[string]any) // Input allows nothing else
		list = append(list, readDescriptor(d))
	}
	return list
}

func readDescriptor(object map[string]any) Descriptor {
	d := Descriptor{
		MediaType:    member[string](object, "mediaType"),
		Digest:       member[string](object, "digest"),
		Size:         member[int64](object, "size"),
		ArtifactType: member[string](object, "artifactType"),
		Platform:     optional(object, "platform", readPlatform),
	}
	for _, item := range member[[]any](object, "urls") {
		if url, ok := item.(string); ok {
			d.URLs = append(d.URLs, url)
		}
	}
	return d
}

func readPlatform(object map[string]any) Platform {
	return Platform{
		OS:           member[string](object, "os"),
		Architecture: member[string](object, "architecture"),
		Variant:      member[string](object, "variant"),
		OSVersion:    member[string](object, "os.version"),
	}
}

// member returns a member of an object, or the zero value if it is absent or of another
// type.
func member[T any](object map[string]any, name string) T {
	value, _ := object[name].(T)
	return value
}

// optional returns what read makes of a member, or nil if it is absent or not an object.
func optional[T any](object map[string]any, name string, read func(map[string]any) T) *T {
	value, ok := object[name].(map[string]any)
	if !ok {
		return nil
	}
	result := read(value)
	return &result
}
