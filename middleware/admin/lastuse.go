package admin

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// ErrNotCounted means that the last use is not known up to this moment.
var ErrNotCounted = errors.New("pulls and pushes are not counted at the moment; `tidings status` says why")

// Uses calls visit with the last use of the tags and manifests of a repository, up to the
// moment of the call, until it returns an error; one may be visited twice. It returns which
// uses are known. The error is ErrNotCounted if the events of this moment are not counted
// within a limited time.
type Uses func(ctx context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) (lastuse.Known, error)

// A LastUse is a line of the response of GET /v1/lastuse.
type LastUse struct {
	Key    string    `json:"key"` // t or d, for a tag or digest, and the first 8 bytes of the SHA-256 of its name, in hex
	Pushed time.Time `json:"pushed,omitzero"`
	Used   time.Time `json:"used,omitzero"`
}

// LastUseEnd is the last line of the response, which is incomplete without it.
type LastUseEnd struct {
	Since   time.Time `json:"since"` // all uses since then are known, except those missing
	Missing string    `json:"missing,omitempty"`
	Rows    int       `json:"rows"`
}

// lastUse sends the rows of a repository, one a line, so that its memory does not grow with
// them.
func (h *handler) lastUse(w http.ResponseWriter, r *http.Request) {
	repository := r.FormValue("repository")
	if repository == "" {
		invalid(w, "repository is missing")
		return
	}
	var after time.Time
	if text := r.FormValue("after"); text != "" {
		var err error
		if after, err = time.Parse(time.RFC3339, text); err != nil {
			invalid(w, "after must be a time such as 2026-01-02T15:04:05Z")
			return
		}
	}
	only := named(r.Form)
	out := bufio.NewWriter(w)
	end := LastUseEnd{}
	known, err := h.Uses(r.Context(), repository, func(k lastuse.Key, u lastuse.Use) error {
		if u.Last().Before(after) || only != nil && !only[k] {
			return nil
		}
		if end.Rows++; end.Rows == 1 {
			w.Header().Set("Content-Type", jsonLines)
		}
		return writeLine(out, LastUse{keyText(k), u.LastPushed(), u.LastUsed()})
	})
	switch {
	case err != nil && end.Rows == 0:
		h.failed(w, r, err)
		return
	case err != nil:
		h.Log.Error("a request of the admin API failed", "path", r.URL.Path, "error", err)
		return
	}
	w.Header().Set("Content-Type", jsonLines)
	end.Since, end.Missing = known.Since.UTC(), known.Missing
	if writeLine(out, end) == nil {
		_ = out.Flush()
	}
}

const jsonLines = "application/jsonl"

func writeLine(out *bufio.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = out.Write(append(line, '\n'))
	return err
}

// named returns the keys of the tags and digests that a request asks for; nil: it asks for
// all.
func named(form url.Values) map[lastuse.Key]bool {
	if len(form["tag"])+len(form["digest"]) == 0 {
		return nil
	}
	only := map[lastuse.Key]bool{}
	for _, tag := range form["tag"] {
		only[lastuse.OfTag(tag)] = true
	}
	for _, digest := range form["digest"] {
		only[lastuse.OfDigest(digest)] = true
	}
	return only
}

func keyText(k lastuse.Key) string { return string(k[0]) + hex.EncodeToString(k[1:]) }

func parseKey(text string) (k lastuse.Key, err error) {
	if len(text) != 1+2*(len(k)-1) {
		return k, fmt.Errorf("%q is no key", text)
	}
	k[0] = text[0]
	_, err = hex.Decode(k[1:], []byte(text[1:]))
	return k, err
}

// LastUse returns the last uses in a repository at or after a time, all if it is zero, and
// which uses are known.
func (c *Client) LastUse(ctx context.Context, repository string, after time.Time) (rows map[lastuse.Key]lastuse.Use, known lastuse.Known, err error) {
	query := url.Values{"repository": {repository}}
	if !after.IsZero() {
		query.Set("after", after.UTC().Format(time.RFC3339Nano))
	}
	res, err := c.send(ctx, http.MethodGet, "/v1/lastuse", query)
	if err != nil {
		return nil, known, err
	}
	defer res.Body.Close()
	rows = map[lastuse.Key]lastuse.Use{}
	lines := json.NewDecoder(res.Body)
	for {
		var line struct {
			LastUse
			End     *int      `json:"rows"`
			Since   time.Time `json:"since"`
			Missing string    `json:"missing"`
		}
		if err := lines.Decode(&line); err != nil {
			return nil, known, fmt.Errorf("read the last uses in %s: %w", repository, err)
		}
		if line.End != nil {
			return rows, lastuse.Known{Since: line.Since, Missing: line.Missing}, nil
		}
		k, err := parseKey(line.Key)
		if err != nil {
			return nil, known, fmt.Errorf("read the last uses in %s: %w", repository, err)
		}
		rows[k] = rows[k].Max(lastuse.Ended(line.Pushed, line.Used))
	}
}
