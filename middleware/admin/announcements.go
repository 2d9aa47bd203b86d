package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/notifier/announce"
)

// Announcements are the posts that the registry has written.
type Announcements interface {
	// List returns posts, newest first, and the cursor of the next page, "" if there is none.
	// match selects them by repository; nil: all.
	List(ctx context.Context, match func(repository string) bool, cursor string, limit int) (page []announce.Announcement, next string, err error)
	// Announcement returns a post.
	Announcement(ctx context.Context, uri string) (announce.Announcement, error)
	// Withdraw deletes a post.
	Withdraw(ctx context.Context, uri string) (announce.Withdrawal, error)
}

// An AnnouncementsPage is the response with posts.
type AnnouncementsPage struct {
	Announcements []announce.Announcement `json:"announcements"`
	Cursor        string                  `json:"cursor,omitempty"` // of the next page
}

// noAnnouncements is the response if nothing is announced.
const noAnnouncements = "nothing is announced: the options of tidings have no announce section, or no account to post to"

func (h *handler) announcements(w http.ResponseWriter, r *http.Request) {
	page := AnnouncementsPage{Announcements: []announce.Announcement{}}
	if uri := r.FormValue("uri"); uri != "" {
		one, err := h.Announcements.Announcement(r.Context(), uri)
		if err != nil {
			h.failed(w, r, err)
			return
		}
		page.Announcements = append(page.Announcements, one)
		send(w, page)
		return
	}
	limit, ok := limitOf(w, r)
	if !ok {
		return
	}
	var match func(string) bool
	if pattern := r.FormValue("repository"); pattern != "" {
		if err := glob.ValidateRepository(pattern); err != nil {
			invalid(w, fmt.Sprintf("repository %q: %v", pattern, err))
			return
		}
		match = func(repository string) bool { return glob.MatchRepository(pattern, repository) }
	}
	found, next, err := h.Announcements.List(r.Context(), match, r.FormValue("cursor"), limit)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	page.Announcements, page.Cursor = append(page.Announcements, found...), next
	send(w, page)
}

func (h *handler) withdraw(w http.ResponseWriter, r *http.Request) {
	result, err := h.Announcements.Withdraw(r.Context(), r.FormValue("uri"))
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, result)
}

// limitOf returns the limit of a page.
func limitOf(w http.ResponseWriter, r *http.Request) (limit int, ok bool) {
	text := r.FormValue("limit")
	if text == "" {
		return defaultLimit, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		invalid(w, fmt.Sprintf("limit must be a number from 1 to %d", maxLimit))
		return 0, false
	}
	return n, true
}
