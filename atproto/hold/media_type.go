package hold

import "bytes"

// signature is the bytes by which a type of file is recognized.
type signature struct {
	at       int
	magic    string
	mimeType string
}

// signatures has the types that accounts use, with the names that the reference
// server gives them. Text has no signature.
var signatures = []signature{
	{0, "\xff\xd8\xff", "image/jpeg"},
	{0, "\x89PNG\r\n\x1a\n", "image/png"},
	{0, "GIF8", "image/gif"},
	{0, "BM", "image/bmp"},
	{0, "II*\x00", "image/tiff"},
	{0, "MM\x00*", "image/tiff"},
	{0, "\x00\x00\x01\x00", "image/x-icon"},
	{0, "\xff\x0a", "image/jxl"},
	{0, "\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"},
	{0, "\x1aE\xdf\xa3", "video/matroska"},
	{0, "OggS", "audio/ogg"},
	{0, "fLaC", "audio/flac"},
	{0, "ID3", "audio/mpeg"},
	{0, "\xff\xfb", "audio/mpeg"},
	{0, "\xff\xf3", "audio/mpeg"},
	{0, "%PDF", "application/pdf"},
	{0, "PK\x03\x04", "application/zip"},
	{0, "\x1f\x8b\x08", "application/gzip"},
	{0, "\x28\xb5\x2f\xfd", "application/zstd"},
	{0, "BZh", "application/x-bzip2"},
	{0, "\xfd7zXZ\x00", "application/x-xz"},
	{0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
	{0, "wOFF", "font/woff"},
	{0, "wOF2", "font/woff2"},
	{0, "\x00asm", "application/wasm"},
	{0, "\x7fELF", "application/x-elf"},
	{257, "ustar", "application/x-tar"},
}

// mediaType recognizes a file by its first bytes; "" if it is unknown.
func mediaType(head []byte) string {
	if known := containerType(head); known != "" {
		return known
	}
	for _, s := range signatures {
		if len(head) >= s.at && bytes.HasPrefix(head[s.at:], []byte(s.magic)) {
			return s.mimeType
		}
	}
	return ""
}

// containerType recognizes container formats with several uses.
func containerType(head []byte) string {
	switch {
	case len(head) < 12:
		return ""
	case string(head[:4]) == "RIFF":
		return map[string]string{"WEBP": "image/webp", "WAVE": "audio/wav", "AVI ": "video/vnd.avi"}[string(head[8:12])]
	case string(head[4:8]) == "ftyp":
		return isoType(head)
	case bytes.HasPrefix(head, []byte("\x1aE\xdf\xa3")) && bytes.Contains(head[:min(len(head), 64)], []byte("webm")):
		return "video/webm"
	case bytes.HasPrefix(head, []byte("OggS")) && len(head) >= 36:
		return oggType(head[28:])
	}
	return ""
}

// isoType reads the major brand of an ISO base media file.
func isoType(head []byte) string {
	switch string(bytes.TrimRight(head[8:12], " \x00")) {
	case "avif", "avis":
		return "image/avif"
	case "heic", "heix":
		return "image/heic"
	case "hevc", "hevx":
		return "image/heic-sequence"
	case "mif1":
		return "image/heif"
	case "msf1":
		return "image/heif-sequence"
	case "qt":
		return "video/quicktime"
	case "M4A":
		return "audio/x-m4a"
	case "M4B", "F4A", "F4B":
		return "audio/mp4"
	case "M4V", "M4VH", "M4VP":
		return "video/x-m4v"
	}
	if string(head[8:10]) == "3g" {
		return "video/3gpp"
	}
	return "video/mp4"
}

// oggType reads the first packet.
func oggType(packet []byte) string {
	switch {
	case bytes.HasPrefix(packet, []byte("OpusHead")):
		return "audio/ogg; codecs=opus"
	case bytes.HasPrefix(packet, []byte("\x80theora")):
		return "video/ogg"
	}
	return "audio/ogg"
}
