//go:build !linux

package middleware

// folderName is not known here.
func folderName(string) string { return "" }
