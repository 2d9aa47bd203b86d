package main

import (
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// artifacts writes artifacts that are not images.
func artifacts(w *writer, image v1.Descriptor) {
	oras := ociImage(v1.DescriptorEmptyJSON,
		with(blob("text/plain", "report", 1_204), v1.AnnotationTitle, "report.txt"))
	oras.ArtifactType = "application/vnd.example.report.v1"
	oras.Annotations = map[string]string{v1.AnnotationCreated: "2024-05-06T07:08:09Z"}
	w.write("oras-artifact.json", v1.MediaTypeImageManifest, "v1.0.0", compact, "artifact as oras pushes it", oras)

	chart := ociImage(blob("application/vnd.cncf.helm.config.v1+json", "chart config", 141),
		blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "chart", 3_786),
		blob("application/vnd.cncf.helm.chart.provenance.v1.prov", "chart provenance", 1_122))
	chart.MediaType = "" // helm leaves it out
	w.write("helm-chart.json", v1.MediaTypeImageManifest, "1.2.3", compact, "Helm chart", chart)

	// The others refer to the image.
	about := tagOf(image.Digest)

	w.write("cosign-signature.json", v1.MediaTypeImageManifest, about+".sig", compact, "cosign signature",
		ociImage(blob(v1.MediaTypeImageConfig, "config signature", 233),
			with(blob("application/vnd.dev.cosign.simplesigning.v1+json", "signature", 248),
				"dev.cosignproject.cosign/signature", "MEUCIQDaSigAoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoAIgAQ==")))
	w.write("cosign-attestation.json", v1.MediaTypeImageManifest, about+".att", compact, "cosign attestation",
		ociImage(blob(v1.MediaTypeImageConfig, "config cosign attestation", 233),
			with(blob(dsse, "envelope", 12_004), "dev.cosignproject.cosign/signature", "", "predicateType", "https://slsa.dev/provenance/v0.2")))

	signature := ociImage(v1.DescriptorEmptyJSON, blob(bundle, "bundle", 4_902))
	signature.ArtifactType = bundle
	signature.Subject = &image
	d := w.write("sigstore-bundle.json", v1.MediaTypeImageManifest, "", compact, "sigstore bundle that refers to its image", signature)
	d.ArtifactType = bundle
	w.write("referrers.json", v1.MediaTypeImageIndex, about, compact, "list of what refers to an image, under the tag of its digest", ociIndex(d))
}

// tagOf returns the referrers tag of a digest, for registries without the referrers API.
func tagOf(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }
