package config

import (
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Warnings is what works, but perhaps not as it was meant.
func (o *Options) Warnings() []string {
	if !o.Enabled {
		return nil
	}
	out := slices.Clone(o.warnings)
	if o.Hold != nil && len(o.Public) == 0 {
		out = append(out, "public is empty: nothing will be published, only counted; name the repositories that may be seen")
	}
	if o.Hold != nil && o.Hold.MovedTo != nil && len(o.Public) > 0 {
		out = append(out, "hold.moved_to says that the account is at "+o.Hold.MovedTo.Service+": nothing more is published from here, and what is to be waits until the account is back, the oldest of it no longer than journal.limit allows; with public empty nothing waits")
	}
	if slices.Contains(o.Public, "*") && !slices.Contains(o.Public, "**") {
		out = append(out, `public has "*", which is every repository without a slash in its name; "**" is every repository`)
	}
	if o.Hold != nil && o.Hold.local() {
		out = append(out, "hold.hostname is "+o.Hold.Hostname+": this identity is for trying things out, nobody else can resolve it, and it cannot be renamed later")
	}
	if o.Hold != nil && !o.Hold.local() {
		if h, err := syntax.ParseHandle(o.Hold.Hostname); err == nil && !h.AllowedTLD() {
			out = append(out, "hold.hostname ends in a name that the public network does not use as a handle; only your own network will know "+o.Hold.Hostname)
		}
	}
	return out
}

func (o *Options) warn(text string) { o.warnings = append(o.warnings, text) }

// local says whether the identity is a localhost one.
func (h *Hold) local() bool {
	return h.Hostname == "localhost" || strings.HasPrefix(h.Hostname, "localhost:")
}
