package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// published answers in place of the network: a status and a body each, the
// last one always; status 0 is no answer.
type published struct {
	answers []answered
	asked   []string
	begun   time.Time
}

type answered struct {
	status int
	body   string
}

func (p *published) RoundTrip(r *http.Request) (*http.Response, error) {
	p.asked = append(p.asked, fmt.Sprintf("%.0f %s", time.Since(p.begun).Seconds(), r.URL))
	a := p.answers[0]
	if len(p.answers) > 1 {
		p.answers = p.answers[1:]
	}
	if a.status == 0 {
		return nil, errors.New("no route")
	}
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Body: io.NopCloser(strings.NewReader(a.body)), Header: http.Header{}}, nil
}

// document is our own DID document, changed.
func (h *testHold) document(old, new string) answered {
	h.Helper()
	body, err := json.Marshal(h.server.doc)
	if err != nil || !strings.Contains(string(body), old) {
		h.Fatalf("%q is not in %s (%v)", old, body, err)
	}
	return answered{200, strings.ReplaceAll(string(body), old, new)}
}

func (h *testHold) publish(answers ...answered) *published {
	p := &published{answers: answers, begun: time.Now()}
	h.server.own.Client.Transport = p
	return p
}

const otherKey = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"

func TestCheckIdentity(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	ours := h.server.doc.SigningKey()
	for _, tc := range []struct {
		name   string
		answer answered
		says   string
		refuse bool
	}{
		{"ours", h.document(ours, ours), "", false},
		{"another key", h.document(ours, otherKey), otherKey, true},
		{"still another key", h.document(ours, otherKey), ours, true},
		{"away, when it was another", answered{}, "no route", true},
		{"ours again", h.document(ours, ours), "", false},
		{"our key by its short name", h.document(h.DID+"#atproto", "#atproto"), "", false},
		{"no key", h.document(`"type":"Multikey"`, `"type":"Multikey","id":"#other"`), `shows ""`, true},
		{"ours once more", h.document(ours, ours), "", false},
		{"away", answered{}, "no route", false},
		{"a gateway's page", answered{502, "<html>"}, "answered", false},
		{"not a document", answered{200, "<html>"}, "not a DID document", false},
		{"too long to be one", answered{200, `{"id":"` + strings.Repeat("x", 64<<10)}, "not a DID document", false},
		{"of somebody else", h.document(h.DID, "did:web:other.example.com"), "did:web:other.example.com", false},
		{"elsewhere", answered{302, ""}, "answered", false},
	} {
		asked := h.publish(tc.answer)
		err := h.server.CheckIdentity(t.Context())
		if err == nil && tc.says != "" || err != nil && (tc.says == "" || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if want := "0 https://" + testHost + "/.well-known/did.json"; len(asked.asked) != 1 || asked.asked[0] != want {
			t.Errorf("%s: asked %q", tc.name, asked.asked)
		}
		_, err = h.repo.Apply(t.Context(), nil, nil)
		if refused := errors.Is(err, repo.ErrSuspended); refused != tc.refuse || err != nil && !refused {
			t.Errorf("%s: a write: %v", tc.name, err)
		}
		if tc.refuse {
			h.Want("POST", apply, writes(`create k {}`), 503, "ServiceUnavailable", "repository is suspended")
			h.Want("GET", "_health", "", 503, "Service Unavailable", "")
			h.Want("GET", "com.atproto.sync.getLatestCommit?did=%", "", 200, "", "")
		} else {
			h.Want("GET", "_health", "", 200, "", "")
		}
	}
	if n := strings.Count(h.logged(), "writes are suspended"); n != 2 {
		t.Errorf("logged %d times, want 2", n)
	}
}

// Looks until the right key was seen: soon, when nobody answers; each minute,
// while it is another.
func TestWatchIdentity(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	ours := h.server.doc.SigningKey()
	other, own := h.document(ours, otherKey), h.document(ours, ours)
	synctest.Test(t, func(t *testing.T) {
		p := h.publish(answered{}, answered{}, other, other, own)
		h.server.watchIdentity(t.Context())
		at := ""
		for _, line := range p.asked {
			at += strings.Fields(line)[0] + " "
		}
		if at != "10 30 70 130 190 " {
			t.Errorf("asked at %s", at)
		}
		if err := h.repo.Suspended(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(h.logged(), "can't verify the hold's DID document"); n != 1 {
			t.Errorf("warned %d times", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		p = h.publish(answered{})
		h.server.watchIdentity(ctx)
		if len(p.asked) < 28 || len(p.asked) > 40 {
			t.Errorf("asked %d times a day", len(p.asked))
		}
	})
}

// Our name that leads inside is not asked.
func TestIdentityGuard(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer inside.Close()
	var err error
	if h.server.own.URL, err = url.Parse(inside.URL); err != nil { // as if our name led here
		t.Fatal(err)
	}
	if err := h.server.CheckIdentity(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a public address") {
		t.Errorf("got %v", err)
	}
	id := h.server.id
	id.Hostname = "localhost:5000"
	if own, err := newOwnDocument(id, h.server.doc); own != nil || err != nil {
		t.Error("a hold on localhost is looked up")
	}
}
