// Package storage reads the manifests and blobs of the registry's storage.
package storage
