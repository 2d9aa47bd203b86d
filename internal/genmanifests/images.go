package main

import (
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// images writes images as docker and buildkit push them. It returns the image that the
// artifacts refer to.
func images(w *writer) v1.Descriptor {
	amd64 := w.write("docker-image.json", dockerManifest, "v1.2.3", docker, "Docker schema 2 image",
		dockerImage(blob(dockerConfig, "config docker amd64", 7_023),
			blob(dockerLayer, "layer 1", 31_357_624),
			blob(dockerLayer, "layer 2", 1_544_009),
			blob(dockerLayer, "layer 3", 203)))
	armv7 := w.write("docker-image-armv7.json", dockerManifest, "", docker, "Docker schema 2 image, child of docker-list.json",
		dockerImage(blob(dockerConfig, "config docker armv7", 7_024),
			blob(dockerLayer, "layer 1 armv7", 26_582_430),
			blob(dockerLayer, "layer 3", 203)))
	w.write("docker-list.json", dockerList, "v1.2.3", docker, "Docker manifest list of two platforms",
		dockerIndex(on(amd64, "linux/amd64"), on(armv7, "linux/arm/v7")))

	image := ociImage(blob(v1.MediaTypeImageConfig, "config oci amd64", 2_469),
		blob(v1.MediaTypeImageLayerGzip, "layer 1", 31_357_624),
		blob(v1.MediaTypeImageLayerGzip, "layer 2", 1_544_009),
		blob(v1.MediaTypeImageLayerZstd, "layer 4", 8_812_112))
	image.Annotations = map[string]string{"org.opencontainers.image.title": "an <app> & more"}
	ociAMD64 := w.write("oci-image.json", v1.MediaTypeImageManifest, "v1.2.3", buildkit, "OCI image", image)
	ociARM64 := w.write("oci-image-arm64.json", v1.MediaTypeImageManifest, "", buildkit, "OCI image, child of oci-index.json",
		ociImage(blob(v1.MediaTypeImageConfig, "config oci arm64", 2_470),
			blob(v1.MediaTypeImageLayerGzip, "layer 1 arm64", 29_904_117),
			blob(v1.MediaTypeImageLayerGzip, "layer 2 arm64", 1_544_120)))

	old := w.write("attestation.json", v1.MediaTypeImageManifest, "", buildkit, "buildkit attestation, child of oci-index.json",
		ociImage(blob(v1.MediaTypeImageConfig, "config attestation amd64", 167), statements("amd64")...))
	withSubject := ociImage(v1.DescriptorEmptyJSON, statements("arm64")...)
	withSubject.ArtifactType = "application/vnd.docker.attestation.manifest.v1+json"
	withSubject.Subject = &ociARM64
	newer := w.write("attestation-subject.json", v1.MediaTypeImageManifest, "", buildkit,
		"buildkit attestation with artifactType and subject, child of oci-index.json", withSubject)

	attests := func(d, subject v1.Descriptor) v1.Descriptor {
		return on(with(d, "vnd.docker.reference.digest", subject.Digest.String(), "vnd.docker.reference.type", "attestation-manifest"), "unknown/unknown")
	}
	w.write("oci-index.json", v1.MediaTypeImageIndex, "v1.2.3", buildkit, "OCI index of two platforms and their attestations",
		ociIndex(on(ociAMD64, "linux/amd64"), on(ociARM64, "linux/arm64"), attests(old, ociAMD64), attests(newer, ociARM64)))
	return ociAMD64
}

func statements(platform string) []v1.Descriptor {
	return []v1.Descriptor{
		with(blob(inToto, "sbom "+platform, 141_082), "in-toto.io/predicate-type", "https://spdx.dev/Document"),
		with(blob(inToto, "provenance "+platform, 5_621), "in-toto.io/predicate-type", "https://slsa.dev/provenance/v0.2"),
	}
}

// oddImages writes valid but unusual images.
func oddImages(w *writer) {
	config := blob(v1.MediaTypeImageConfig, "config odd", 1_000)

	empty := blob(v1.MediaTypeImageLayerGzip, "layer empty", 32)
	first := blob(v1.MediaTypeImageLayerGzip, "layer 1", 31_357_624)
	w.write("repeated-layers.json", v1.MediaTypeImageManifest, "v2.0.0", compact, "OCI image that lists two digests three and two times",
		ociImage(config, first, empty, blob(v1.MediaTypeImageLayerGzip, "layer 2", 1_544_009), empty, first, empty))

	foreign := blob(dockerForeign, "layer windows base", 1_718_332_879)
	foreign.URLs = []string{"https://layers.example.com/windows/base.tar.gz"}
	w.write("foreign-layers.json", dockerManifest, "v2.0.0", docker, "Docker image whose first layer is elsewhere",
		dockerImage(blob(dockerConfig, "config windows", 3_455), foreign, blob(dockerLayer, "layer windows app", 91_220)))

	var many []v1.Descriptor
	for i := range 127 {
		many = append(many, blob(v1.MediaTypeImageLayerGzip, fmt.Sprintf("layer many %d", i), int64(1_000+i)))
	}
	w.write("many-layers.json", v1.MediaTypeImageManifest, "v2.0.0", compact, "OCI image with 127 layers, the most that Docker takes",
		ociImage(config, many...))

	untyped := ociImage(config, first)
	untyped.MediaType = ""
	w.write("oci-image-untyped.json", v1.MediaTypeImageManifest, "v2.0.0", compact, "OCI image without a mediaType of its own", untyped)

	w.write("no-layers.json", v1.MediaTypeImageManifest, "v2.0.0", compact, "OCI image of nothing", ociImage(config))
}
