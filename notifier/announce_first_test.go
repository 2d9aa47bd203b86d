package notifier

import (
	"strings"
	"testing"
)

// A post says that a version is the first if neither the counts nor storage know another version
// of the repository.
func TestFirstVersion(t *testing.T) {
	t.Parallel()
	first, other := image("first", 1), image("other", 1)
	for name, test := range map[string]struct {
		before func(r *rig)
		want   bool
	}{
		"nothing before":                      {func(*rig) {}, true},
		"a version before":                    {func(r *rig) { r.push(other.as("oss/app", "v0.9.0")) }, false},
		"a deleted version":                   {func(r *rig) { r.push(other.as("oss/app", "v0.9.0")); r.delete(other.as("oss/app", "v0.9.0")) }, false},
		"another tag":                         {func(r *rig) { r.push(other.as("oss/app", "latest")) }, true},
		"another repository":                  {func(r *rig) { r.push(other.as("oss/other", "v0.9.0")) }, true},
		"the same tag":                        {func(r *rig) { r.push(other.as("oss/app", "v1.0.0")) }, false},
		"no tag":                              {func(r *rig) { r.push(other.as("oss/app", "")) }, true},
		"pushed before Tidings was installed": {func(r *rig) { r.storage.put(other.as("oss/app", "v0.9.0")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := shortWindows()
			cfg.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
			r := newRig(t, cfg)
			test.before(r)
			r.drain()
			r.push(first.as("oss/app", "v1.0.0"))
			r.drain()
			var text string
			for _, post := range r.posts() {
				if found := post["text"].(string); strings.HasPrefix(found, "oss/app:v1.0.0") && strings.Contains(post["tidingsImage"].(string), first.Digest) {
					text = found
				}
			}
			if got := strings.Contains(text, "first version"); got != test.want || text == "" {
				t.Errorf("the post is %q, want it to say that it is the first: %v", text, test.want)
			}
		})
	}
}
