package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
)

// notify makes the call and reads the answer.
func (h *Hold) notify(ctx context.Context, body []byte, key string) (out lexicon.NotifyManifestOutput, err error) {
	a, failed := h.post(ctx, body, key)
	if failed != nil {
		return out, failed
	}
	out, err = readOutput(a)
	if err != nil {
		return out, &pds.Error{Method: lexicon.NSIDNotifyManifest, Status: a.status, Outcome: pds.Unknown, Err: err}
	}
	h.noteKeys(a.header, key)
	return out, nil
}

func readOutput(a *answer) (lexicon.NotifyManifestOutput, error) {
	var got struct {
		lexicon.NotifyManifestOutput
		Success *bool `json:"success"`
	}
	if kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); kind != "application/json" {
		return got.NotifyManifestOutput, fmt.Errorf("the answer is %q, not application/json", guard.Printable(kind, 64))
	}
	if err := json.Unmarshal(a.content, &got); err != nil {
		return lexicon.NotifyManifestOutput{}, fmt.Errorf("invalid answer: %w", err)
	}
	if got.Success == nil {
		return got.NotifyManifestOutput, errors.New("invalid answer: it has no success")
	}
	out := got.NotifyManifestOutput
	out.Success = *got.Success
	return out, nil
}

// post sends an input, with a new token each time. Until the hold has accepted an
// audience, the audiences of its DID document are tried in order, since holds differ in
// which one they accept; a refused token has no effect. The answer is one of status 200.
func (h *Hold) post(ctx context.Context, body []byte, key string) (*answer, *pds.Error) {
	at, err := h.address(ctx)
	if err != nil {
		return nil, notSent(lexicon.NSIDNotifyManifest, err)
	}
	var first *pds.Error
	for _, audience := range h.audiences(at) {
		a, failed := h.postOnce(ctx, at, audience, body, key)
		if !refusesToken(failed) {
			h.noteAudience(audience, failed)
			return a, failed
		}
		if h.accepted(audience) && !aboutAudience(failed) {
			return nil, failed
		}
		if first == nil || aboutAudience(first) {
			first = failed
		}
	}
	return nil, first
}

func (h *Hold) postOnce(ctx context.Context, at *address, audience string, body []byte, key string) (*answer, *pds.Error) {
	const method = lexicon.NSIDNotifyManifest
	token, err := h.cfg.Tokens.ServiceToken(ctx, audience, method)
	if err != nil {
		return nil, notSent(method, fmt.Errorf("service token: %w", err))
	}
	r := request{method: method, input: body, token: token, key: key, limit: maxOutput}
	a, failed := h.do(ctx, at.client, at.endpoint, r)
	if failed == nil && a.status != http.StatusOK {
		failed = answerError(r, a, h.cfg.Now())
	}
	if a != nil && key != "" && a.header.Get(keyHeader) == key {
		h.setKeys(KeysHonored)
	}
	return a, failed
}

// audiences returns the audiences in the order in which they are tried.
func (h *Hold) audiences(at *address) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.audience == at.audiences[1] {
		return []string{at.audiences[1], at.audiences[0]}
	}
	return at.audiences
}

func (h *Hold) accepted(audience string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.audience == audience
}

// noteAudience notes that an audience was accepted, if the hold has read the call.
func (h *Hold) noteAudience(audience string, failed *pds.Error) {
	if failed != nil && failed.Outcome != pds.Refused {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.audience = audience
}

// refusesToken reports whether there is no accepted token, possibly because of its
// audience: the hold has refused it, or the account's PDS the audience. Older ones know no
// audience with a fragment.
func refusesToken(e *pds.Error) bool {
	if e == nil || e.Outcome != pds.Suspended {
		return false
	}
	var ofPDS *pds.Error
	if errors.As(e.Err, &ofPDS) {
		return ofPDS.Outcome == pds.Refused
	}
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusBadRequest
}

// aboutAudience reports whether the hold says that the audience is what is wrong.
func aboutAudience(e *pds.Error) bool {
	return e.Name == "BadJwtAudience" || strings.Contains(strings.ToLower(e.Message), "audience")
}

// noteKeys notes whether the answer to a successful call repeats its key.
func (h *Hold) noteKeys(header http.Header, key string) {
	if key != "" && header.Get(keyHeader) != key {
		h.setKeys(KeysIgnored)
	}
}

func (h *Hold) setKeys(k Keys) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys != k {
		h.log.Info("the hold has answered", "idempotency_key", k.String())
	}
	h.keys = k
}
