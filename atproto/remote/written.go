package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// Written: what to do after a lost answer
//
// A call was sent and no valid answer was received: the connection broke, a proxy answered
// in place of the hold, or this process crashed. The hold may have applied the call, or a
// part of it, or may apply it yet. Then
//
//   - A hold that honors the Idempotency-Key applies a repeated call once: Repeat. It
//     honors it for a limited time, see keyLife. If the hold has not answered since this
//     process has started, a call that it has to refuse asks it: a hold of Tidings repeats
//     the key in the answer to each call that it authorizes.
//   - At any other hold a push has created the records of its layers. They are listed, from
//     the newest to those that are older than the call. All there: Applied. None: Repeat.
//     A part, because the hold creates one after the other and was interrupted: Repeat, and
//     Call has the layers that are missing, so that no layer has two records. The counts
//     are the last thing that such a hold writes.
//   - A pull, a private push and a push without layers leave no record: Uncertain. They are
//     not repeated. A count is lost rather than doubled. The same holds for a push if the hold
//     has more newer records than are listed, such as after a long outage.
//
// The hold's clock sets the time of the records. The Date of its answer says how far it is
// from ours.
//
// Before the records are listed the hold gets time to finish: settle after the lost answer,
// and after the start, since a call of an earlier process may have been sent just before it
// ended. Records that are listed after that and still get written are the one case in which
// a layer gets two records; the hold does the same itself if a manifest is pushed twice.

// Next says what to do with a call whose answer was lost.
type Next int

const (
	// Uncertain: it is not known whether the call was applied. It may not be repeated.
	Uncertain Next = iota
	// Repeat: Written.Call may be sent.
	Repeat
	// Applied: the hold has the records of the call. It may not be repeated.
	Applied
)

func (n Next) String() string { return [...]string{"uncertain", "repeat", "applied"}[n] }

// Written is what is known of a call whose answer was lost.
type Written struct {
	Next    Next
	Call    Call     // to be sent next, if Next is Repeat: the same call, or the same with fewer layers
	Records []string // URIs of the call's records that were found, the newest first
}

const (
	keyLife    = 6 * 24 * time.Hour // a hold of Tidings honors a key for at least 7 days
	clockError = 2 * time.Second    // a Date is precise to a second, and an answer takes time
	pageLimit  = 100                // records of a page
	maxPages   = 100
	maxCursor  = 512 // bytes
)

// Written says whether a call that was sent before may be repeated. It may be called after
// any number of lost answers, in any process. An error does not concern the call: Written is
// to be called again, not before its Until.
func (h *Hold) Written(ctx context.Context, c Call) (Written, error) {
	if err := h.paused(listRecords, h.settleAt); err != nil {
		return Written{}, err
	}
	if h.cfg.Now().Sub(c.Since) < keyLife {
		honored, err := h.honorsKeys(ctx, c)
		if err != nil {
			return Written{}, h.note(err)
		}
		if honored {
			return Written{Next: Repeat, Call: c}, nil
		}
	}
	layers := recorded(c.Input)
	if len(layers) == 0 {
		return Written{Next: Uncertain}, nil
	}
	found, err := h.findLayers(ctx, c, layers)
	if errors.Is(err, errTooMany) && len(found.digests) < len(layers) {
		h.log.Warn("a call whose response was lost is not repeated", "error", err, "key", c.Key)
		return Written{Next: Uncertain, Records: found.uris}, nil
	}
	if err != nil && !errors.Is(err, errTooMany) {
		return Written{}, h.note(notSent(listRecords, err))
	}
	h.note(nil)
	return found.next(c, layers), nil
}

// recorded returns the digests of the layers that get a record.
func recorded(in lexicon.NotifyManifestInput) map[string]bool {
	digests := map[string]bool{}
	if in.Operation == lexicon.OperationPull || in.Visibility == lexicon.VisibilityPrivate {
		return digests
	}
	for _, d := range valid(in.Manifest.Layers) {
		digests[d.Digest] = true
	}
	return digests
}

// honorsKeys reports whether the hold honors keys. If that is not known, it sends a call
// that each hold has to refuse, as it has neither a valid operation nor a manifest.
func (h *Hold) honorsKeys(ctx context.Context, c Call) (bool, error) {
	if keys := h.Status().Keys; keys != KeysUnknown {
		return keys == KeysHonored, nil
	}
	body, err := json.Marshal(map[string]string{"operation": "none", "userDid": c.Input.UserDID})
	if err != nil {
		return false, err
	}
	a, failed := h.post(ctx, body, c.Key)
	if failed == nil {
		if _, err := readOutput(a); err != nil {
			return false, notSent(lexicon.NSIDNotifyManifest, err)
		}
	} else if !refusesInput(failed) {
		return false, notSent(lexicon.NSIDNotifyManifest, failed)
	}
	if h.Status().Keys == KeysUnknown {
		h.setKeys(KeysIgnored)
	}
	return h.Status().Keys == KeysHonored, nil
}

// refusesInput reports whether the hold has accepted the token and refused the input. A 403
// with another name than Forbidden is about the owner or the operation.
func refusesInput(e *pds.Error) bool {
	return e.Outcome == pds.Refused || e.Status == http.StatusForbidden && e.Name != "Forbidden"
}

// layerRecords are the records of a call that were found.
type layerRecords struct {
	uris    []string
	digests map[string]bool
}

func (f layerRecords) next(c Call, layers map[string]bool) Written {
	if len(f.digests) == len(layers) {
		return Written{Next: Applied, Records: f.uris}
	}
	var missing []lexicon.Descriptor
	for _, d := range c.Input.Manifest.Layers {
		if !f.digests[d.Digest] {
			missing = append(missing, d)
		}
	}
	c.Input.Manifest.Layers = missing
	return Written{Next: Repeat, Call: c, Records: f.uris}
}

const listRecords = "com.atproto.repo.listRecords"

// A layerPage is a page of the hold's layer records.
type layerPage struct {
	Cursor  string `json:"cursor"`
	Records []struct {
		URI   string        `json:"uri"`
		Value lexicon.Layer `json:"value"`
	} `json:"records"`
	ahead time.Duration // of the hold's clock
}

// findLayers lists the layer records of the hold, the newest first, until they are older
// than the call.
func (h *Hold) findLayers(ctx context.Context, c Call, layers map[string]bool) (layerRecords, error) {
	found := layerRecords{digests: map[string]bool{}}
	cursor, reverse := "", false
	for range maxPages {
		page, err := h.listLayers(ctx, cursor, pageLimit, reverse)
		if err != nil {
			return found, err
		}
		if cursor == "" && !reverse && page.Cursor != "" && page.ascending() {
			reverse = true // this hold's order is the opposite one
			continue
		}
		older := found.add(page, c, layers)
		if older || page.Cursor == "" || len(page.Records) == 0 {
			return found, nil
		}
		cursor = page.Cursor
	}
	return found, errTooMany
}

// errTooMany is the error of a hold that has more records since the call than are read.
var errTooMany = fmt.Errorf("the hold has more than %d records since the call", maxPages*pageLimit)

// add adds the records of a page that a call has created. It reports whether the page has
// records that are older than the call.
func (f *layerRecords) add(page *layerPage, c Call, layers map[string]bool) (older bool) {
	manifest := lexicon.ManifestURI(c.Input.UserDID, c.Input.ManifestDigest)
	since := c.Since.Add(page.ahead - clockError)
	for _, r := range page.Records {
		created, err := recordTime(r.URI)
		if err == nil && created.Before(since) {
			older = true
			continue
		}
		v := r.Value
		if v.Manifest == manifest && v.UserDID == c.Input.UserDID && layers[v.Digest] && !createdBefore(v.CreatedAt, since) {
			f.uris, f.digests[v.Digest] = append(f.uris, r.URI), true
		}
	}
	return older
}

// recordTime is the time in a record key, which is a TID.
func recordTime(uri string) (time.Time, error) {
	tid, err := syntax.ParseTID(uri[strings.LastIndexByte(uri, '/')+1:])
	if err != nil {
		return time.Time{}, err
	}
	return tid.Time(), nil
}

func createdBefore(text string, since time.Time) bool {
	created, err := time.Parse(time.RFC3339, text)
	return err == nil && created.Before(since.Truncate(time.Second))
}

func (p *layerPage) ascending() bool {
	n := len(p.Records)
	return n > 1 && p.Records[0].URI < p.Records[n-1].URI
}

// listLayers reads a page of the hold's layer records.
func (h *Hold) listLayers(ctx context.Context, cursor string, limit int, reverse bool) (*layerPage, error) {
	at, err := h.address(ctx)
	if err != nil {
		return nil, err
	}
	query := url.Values{"repo": {h.cfg.Hold}, "collection": {lexicon.NSIDLayer}, "limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	if reverse {
		query.Set("reverse", "true")
	}
	r := request{method: listRecords, query: query, limit: maxPage}
	start := h.cfg.Now()
	a, failed := h.do(ctx, at.reader, at.repo, r)
	if failed != nil {
		return nil, failed
	}
	now := h.cfg.Now()
	if a.status != http.StatusOK {
		return nil, answerError(r, a, now)
	}
	var page layerPage
	if err := json.Unmarshal(a.content, &page); err != nil {
		return nil, fmt.Errorf("%s: invalid answer: %w", listRecords, err)
	}
	if page.Records == nil {
		return nil, errors.New(listRecords + ": invalid answer: it has no list of records")
	}
	page.ahead = clockAhead(a.header, start.Add(now.Sub(start)/2))
	if len(page.Cursor) > maxCursor {
		return nil, errors.New(listRecords + ": invalid answer: the cursor is too long")
	}
	return &page, nil
}
