package post

import (
	"errors"
	"fmt"
	"slices"

	uax29 "github.com/clipperhouse/uax29/v2/graphemes"
)

// Limits of annotations, which the client that pushes chooses.
const (
	MaxAnnotations     = 16
	maxAnnotationKey   = 128 // bytes
	maxAnnotation      = 100 // graphemes of a value
	maxAnnotationBytes = 1000
)

// CheckAnnotationKeys returns an error unless keys can be the annotations that templates
// use.
func CheckAnnotationKeys(keys []string) error {
	if len(keys) > MaxAnnotations {
		return fmt.Errorf("has %d annotations; at most %d are allowed", len(keys), MaxAnnotations)
	}
	for i, key := range keys {
		if key == "" {
			return errors.New(`an annotation has no name; use one such as "org.opencontainers.image.title"`)
		}
		if key != line(key) || len(key) > maxAnnotationKey {
			return fmt.Errorf("%.140q is an invalid annotation name; it may have up to %d bytes and no control characters", key, maxAnnotationKey)
		}
		if slices.Contains(keys[:i], key) {
			return fmt.Errorf("%q is listed twice", key)
		}
	}
	return nil
}

// SelectAnnotations returns those annotations that have one of the keys, as CleanAnnotations
// does; nil if there are none.
func SelectAnnotations(all map[string]string, keys []string) map[string]string {
	selected := map[string]string{}
	for _, key := range keys {
		if val, ok := all[key]; ok {
			selected[key] = val
		}
	}
	return CleanAnnotations(selected)
}

// CleanAnnotations makes the values safe for use in one line of text and shortens them.
// Empty values and invalid keys are left out; nil if none is left.
func CleanAnnotations(all map[string]string) map[string]string {
	var clean map[string]string
	for key, val := range all {
		if val = shortened(line(val[:min(len(val), 4*maxAnnotationBytes)])); val == "" || key != line(key) {
			continue
		}
		if clean == nil {
			clean = map[string]string{}
		}
		clean[key] = val
	}
	return clean
}

// shortened cuts a value at a grapheme boundary.
func shortened(val string) string {
	end, all := 0, uax29.FromString(val)
	for n := 0; n < maxAnnotation && all.Next() && all.End() <= maxAnnotationBytes; n++ {
		end = all.End()
	}
	return line(val[:end])
}
