package post

// Sample returns the facts of a typical image, with annotations of the given keys.
func Sample(annotations []string) Facts {
	values := map[string]string{}
	for _, key := range annotations {
		values[key] = "Example"
	}
	return Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", "v1.2", "latest"},
		Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Images: 1, Size: 45_230_000, Layers: 7, LayerSizes: []int64{29_100_000, 9_600_000, 4_200_000, 1_900_000, 420_000, 9_000, 1_000},
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3", Link: "https://registry.example.com/oss/app",
		Mention: Mention{"alice.example.com", "did:web:alice.example.com"}, Hashtags: []string{"containers"}, Annotations: values,
	}
}
