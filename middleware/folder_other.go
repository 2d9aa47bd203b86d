//go:build !linux

package middleware

// folderID is implemented on Linux only; elsewhere it is unknown.
func folderID(string) string { return "" }
