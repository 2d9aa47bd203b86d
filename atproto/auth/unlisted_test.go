package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// directory is a directory of did:plc on this machine. A DID without a document is not
// found.
type directory struct {
	*httptest.Server
	mu       sync.Mutex
	serve    map[string]http.HandlerFunc // by DID
	requests atomic.Int64
}

func newDirectory(t *testing.T) *directory {
	d := &directory{serve: map[string]http.HandlerFunc{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.requests.Add(1)
		d.mu.Lock()
		serve := d.serve[strings.TrimPrefix(r.URL.Path, "/")]
		d.mu.Unlock()
		if serve == nil {
			serve = http.NotFound
		}
		serve(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *directory) set(did string, serve http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serve[did] = serve
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// testPLC is a valid did:plc for each number.
func testPLC(i int) string {
	return "did:plc:" + strings.NewReplacer("0", "a", "1", "b").Replace(fmt.Sprintf("%024o", i))
}

// newOpenCallers are callers among which any account may report pulls.
func newOpenCallers(t *testing.T) (*testCallers, *directory) {
	t.Helper()
	h, d := &testCallers{TB: t, id: newIdentity(t), now: time.Now()}, newDirectory(t)
	doc, err := h.id.Document()
	if err != nil {
		t.Fatal(err)
	}
	h.Callers, err = NewCallers(CallersConfig{
		Document: doc, Audiences: []string{"did:web:old.example.com", "did:web:new.example.com#atcr_hold"},
		Registries: []string{testPLC(1)}, Owners: []string{testPLC(2)}, Pulls: PullsAnyone, PLC: d.URL,
		Now: func() time.Time { return h.now }, Metrics: NewCallerMetrics(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, d
}

// account returns an account whose document is in the directory.
func (d *directory) account(h *testCallers, did string) *account {
	h.Helper()
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		h.Fatal(err)
	}
	a := &account{did: did, key: key}
	d.set(did, text(200, a.document(h).Body))
	return a
}

// callFrom makes a call from an address.
func (h *testCallers) callFrom(addr netip.Addr, token string) error {
	c := &xrpc.Call{Request: httptest.NewRequest("POST", "/xrpc/"+method, nil), NSID: method}
	c.Request.RemoteAddr = netip.AddrPortFrom(addr, 1).String()
	c.Request.Header.Set("Authorization", "Bearer "+token)
	return h.Authorize(c)
}

func testAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }

func statusOf(err error) int {
	var e *xrpc.Error
	switch {
	case err == nil:
		return 200
	case errors.As(err, &e):
		return e.Status
	}
	return 0
}

// Each malformed token has its error, and all that can be checked without the issuer's
// document is checked before it is fetched.
func TestUnlistedTokens(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	h.Callers.unlisted.pace = newIssuerPace(pace{1000, time.Second}, pace{1000, time.Second}, 100)
	h.Callers.unlisted.keys.counts.perKey = 1000
	a := d.account(h, testPLC(10))
	claim := func(name string, value any) string { return a.sign(h, map[string]any{name: value}) }
	from := func(iss string) string { return claim("iss", iss) }
	bare, unsigned := h.id.DID, claim("x", 1)
	unsigned = unsigned[:strings.LastIndex(unsigned, ".")]
	const ok, before, fetched = 200, false, true
	for name, tc := range map[string]struct {
		token  string
		status int
		error  string
		fetch  bool // whether a document is fetched for it
	}{
		"valid":         {claim("x", 1), ok, "", fetched},
		"no token":      {"", 401, "AuthMissing", before},
		"one part":      {"x", 401, "BadJwt", before},
		"four parts":    {claim("x", 1) + ".x", 401, "BadJwt", before},
		"no base64":     {"!.!.!", 401, "BadJwt", before},
		"no JSON":       {"eA.eA.eA", 401, "BadJwt", before},
		"no claims":     {"e30.e30.eA", 401, "BadJwtSignature", before},
		"too long":      {claim("x", strings.Repeat("x", maxServiceToken)), 401, "BadJwt", before},
		"session token": {claim("typ", "at+jwt"), 401, "BadJwtType", before},

		"alg none":         {claim("alg", "none"), 401, "BadJwtSignature", before},
		"alg HS256":        {claim("alg", "HS256"), 401, "BadJwtSignature", before},
		"no alg":           {claim("alg", ""), 401, "BadJwtSignature", before},
		"alg of other key": {claim("alg", "ES256K"), 401, "BadJwtSignature", fetched},
		"no signature":     {unsigned + ".", 401, "BadJwtSignature", before},
		"short signature":  {unsigned + "." + strings.Repeat("A", 80), 401, "BadJwtSignature", before},
		"other signature":  {unsigned + "." + strings.Repeat("A", 86), 401, "BadJwtSignature", fetched},
		"key #atproto":     {claim("kid", "#atproto"), ok, "", fetched},
		"its full ID":      {claim("kid", a.did+"#atproto"), ok, "", fetched},
		"other key":        {claim("kid", "#atproto_label"), 401, "BadJwtSignature", before},
		"key of another":   {claim("kid", testPLC(11)+"#atproto"), 401, "BadJwtSignature", before},

		"no exp":        {claim("exp", nil), 401, "BadJwt", before},
		"exp is text":   {claim("exp", "soon"), 401, "BadJwt", before},
		"exp now":       {claim("exp", h.now.Unix()), 401, "JwtExpired", before},
		"exp too far":   {claim("exp", h.now.Add(6*time.Minute).Unix()), 401, "BadJwtExpiration", before},
		"exp 5 minutes": {claim("exp", h.now.Add(5*time.Minute).Unix()), ok, "", fetched},

		"no lxm":      {claim("lxm", nil), 401, "BadJwtLexiconMethod", before},
		"other lxm":   {claim("lxm", "com.example.other"), 401, "BadJwtLexiconMethod", before},
		"lxm is *":    {claim("lxm", "*"), 401, "BadJwtLexiconMethod", before},
		"lxm longer":  {claim("lxm", method+"s"), 401, "BadJwtLexiconMethod", before},
		"lxm in list": {claim("lxm", []string{method}), 401, "BadJwt", before},

		"aud #atcr_hold":             {claim("aud", bare+"#atcr_hold"), ok, "", fetched},
		"aud #atproto_pds":           {claim("aud", bare+"#atproto_pds"), ok, "", fetched},
		"aud in a list":              {claim("aud", []string{bare}), ok, "", fetched},
		"aud configured":             {claim("aud", "did:web:old.example.com"), ok, "", fetched},
		"aud configured, of service": {claim("aud", "did:web:new.example.com#atcr_hold"), ok, "", fetched},
		"no aud":                     {claim("aud", nil), 401, "BadJwt", before},
		"two aud":                    {claim("aud", []string{bare, bare + "#atcr_hold"}), 401, "BadJwt", before},
		"aud of another":             {claim("aud", "did:web:other.example.com#atcr_hold"), 401, "BadJwtAudience", before},
		"aud only a fragment":        {claim("aud", "#atcr_hold"), 401, "BadJwtAudience", before},
		"aud of another service":     {claim("aud", bare+"#atproto_labeler"), 401, "BadJwtAudience", before},
		"aud with an empty service":  {claim("aud", bare+"#"), 401, "BadJwtAudience", before},
		"aud is a wildcard":          {claim("aud", "*"), 401, "BadJwtAudience", before},
		"aud of any service":         {claim("aud", bare+"#*"), 401, "BadJwtAudience", before},
		"service of a bare aud":      {claim("aud", "did:web:old.example.com#atcr_hold"), 401, "BadJwtAudience", before},
		"bare aud of a service":      {claim("aud", "did:web:new.example.com"), 401, "BadJwtAudience", before},

		"no iss":                {claim("iss", nil), 401, "BadJwt", before},
		"iss with a fragment":   {from(a.did + "#atproto"), 401, "BadJwtIss", before},
		"iss is a handle":       {from("alice.example.com"), 401, "BadJwtIss", before},
		"iss is a did:key":      {from("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"), 401, "BadJwtIss", before},
		"iss is no did:plc":     {from("did:plc:abc"), 401, "BadJwtIss", before},
		"iss is a path":         {from("did:plc:..%2F..%2Fadmin"), 401, "BadJwtIss", before},
		"iss with a port":       {from("did:web:example.com%3A8080"), 401, "BadJwtIss", before},
		"iss with a path":       {from("did:web:example.com:path"), 401, "BadJwtIss", before},
		"iss is an address":     {from("did:web:10.0.0.1"), 401, "BadJwtIss", before},
		"iss is this machine":   {from("did:web:127.0.0.1"), 401, "BadJwtIss", before},
		"iss is localhost":      {from("did:web:localhost%3A" + port(d)), 401, "BadJwtIss", before},
		"iss below localhost":   {from("did:web:a.localhost"), 401, "BadJwtIss", before},
		"iss of another's key":  {from(d.account(h, testPLC(12)).did), 401, "BadJwtSignature", fetched},
		"iss without documents": {from(testPLC(13)), 503, "ServiceUnavailable", fetched},
	} {
		requests := d.requests.Load()
		h.Callers.unlisted.keys.cache.Turn()
		h.Callers.unlisted.keys.cache.Turn() // nothing is cached
		_, err := h.call(tc.token)
		var e *xrpc.Error
		if statusOf(err) != tc.status || errors.As(err, &e) && e.Name != tc.error {
			t.Errorf("%s: got %v, want %d %s", name, err, tc.status, tc.error)
		}
		if got := d.requests.Load() > requests; got != tc.fetch {
			t.Errorf("%s: fetched: %v", name, got)
		}
		if tc.status == 200 {
			h.want(tc.token, 401, "BadJwtReplay", "")
		}
	}
}

func port(d *directory) string { return d.URL[strings.LastIndex(d.URL, ":")+1:] }

// What the host of a DID document answers cannot lead anywhere else, and only the #atproto
// key is accepted.
func TestUnlistedDocuments(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	var inside atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	t.Cleanup(internal.Close)
	a := d.account(h, testPLC(20))
	valid := a.document(h).Body
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, internal.URL, status) }
	}
	for name, tc := range map[string]struct {
		serve  http.HandlerFunc
		status int
		error  string
	}{
		"valid":              {text(200, valid), 200, ""},
		"other members":      {text(200, strings.Replace(valid, "{", `{"x":[1],`, 1)), 200, ""},
		"redirect":           {redirect(302), 503, "ServiceUnavailable"},
		"permanent redirect": {redirect(308), 503, "ServiceUnavailable"},
		"not found":          {text(404, "no"), 503, "ServiceUnavailable"},
		"gone":               {text(410, "{}"), 503, "ServiceUnavailable"},
		"garbage":            {text(200, "<html>"), 503, "ServiceUnavailable"},
		"a list":             {text(200, "[]"), 503, "ServiceUnavailable"},
		"empty":              {text(200, ""), 503, "ServiceUnavailable"},
		"huge":               {text(200, strings.Replace(valid, "{", `{"x":"`+strings.Repeat("x", 1<<20)+`",`, 1)), 503, "ServiceUnavailable"},
		"deep":               {text(200, strings.Repeat("[", 60_000)), 503, "ServiceUnavailable"},
		"of another DID":     {text(200, strings.ReplaceAll(valid, a.did, testPLC(21))), 401, "BadJwtIss"},
		"no key":             {text(200, `{"id":"`+a.did+`"}`), 401, "BadJwtIss"},
		"another key":        {text(200, strings.Replace(valid, "#atproto", "#atproto_label", 1)), 401, "BadJwtIss"},
		"not a key":          {text(200, strings.Replace(valid, "Multikey", "Other", 1)), 401, "BadJwtIss"},
		"key of another":     {text(200, strings.Replace(valid, `"controller":"`+a.did, `"controller":"`+testPLC(21), 1)), 401, "BadJwtIss"},
	} {
		d.set(a.did, tc.serve)
		h.Callers.unlisted.keys.cache.Turn()
		h.Callers.unlisted.keys.cache.Turn()
		_, err := h.call(a.sign(h, nil))
		var e *xrpc.Error
		if statusOf(err) != tc.status || errors.As(err, &e) && e.Name != tc.error {
			t.Errorf("%s: got %v, want %d %s", name, err, tc.status, tc.error)
		}
		if e != nil && strings.Contains(e.Message, "127.0.0.1") {
			t.Errorf("%s: the client gets %q", name, e.Message)
		}
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
	// A domain that resolves to an internal address.
	public, err := url.Parse("https://inward.example.com")
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(internal.URL)
	if err != nil {
		t.Fatal(err)
	}
	h.Callers.unlisted.keys.open = func(string) (*identity.Source, error) {
		return &identity.Source{URL: to, Client: guard.Client(public)}, nil
	}
	stranger := &account{did: "did:web:inward.example.com", key: a.key}
	h.want(stranger.sign(h, nil), 503, "ServiceUnavailable", "inward.example.com")
	if n := inside.Load(); n != 0 {
		t.Errorf("an internal address had %d requests", n)
	}
}

// A hold on localhost is for testing; there accounts are on localhost as well.
func TestUnlistedOnLocalhost(t *testing.T) {
	t.Parallel()
	for hold, local := range map[string]bool{"did:web:localhost%3A5000": true, "did:web:localhost": true, "did:web:localhost.example.com": false} {
		r := newResolver(CallersConfig{Document: identity.Document{ID: hold}})
		if _, err := r.open("did:web:localhost%3A5001"); (err == nil) != local {
			t.Errorf("%s: got %v", hold, err)
		}
	}
}

// An account has a rate, and all unlisted accounts have one together. Neither affects
// configured accounts.
func TestUnlistedFlood(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	registry, owner := d.account(h, testPLC(1)), d.account(h, testPLC(2))
	a, b := d.account(h, testPLC(30)), d.account(h, testPLC(31))
	accepted, limited := 0, 0
	flood := func(from *account, calls int) {
		accepted, limited = 0, 0
		for range calls {
			err := h.callFrom(testAddr(1), from.sign(h, nil))
			var e *xrpc.Error
			switch {
			case err == nil:
				accepted++
			case errors.As(err, &e) && e.Status == 429 && e.RetryAfter > 0 && e.RetryAfter <= time.Second:
				limited++
			default:
				t.Fatal(err)
			}
		}
	}
	flood(a, 200)
	if accepted != unlistedPace.burst || limited != 200-accepted {
		t.Errorf("%d calls were accepted, %d limited", accepted, limited)
	}
	flood(b, 1)
	if accepted != 1 {
		t.Error("another account is limited")
	}
	h.now = h.now.Add(3 * time.Second)
	flood(a, 10)
	if accepted != 3 {
		t.Errorf("%d calls were accepted in 3 seconds", accepted)
	}
	// Many accounts at once.
	total := 0
	for i := range 20 {
		flood(d.account(h, testPLC(100+i)), 40)
		total += accepted
	}
	if total < 500 || total > allUnlistedPace.burst {
		t.Errorf("%d calls of all accounts were accepted", total)
	}
	if n := len(h.Callers.unlisted.used.tokens); n > maxUnlistedTokens/2 {
		t.Errorf("%d tokens are remembered", n)
	}
	for range 300 {
		h.want(registry.sign(h, nil), 200, "", "")
		h.want(owner.sign(h, nil), 200, "", "")
	}
	if got := testutil.ToFloat64(h.metrics.calls.WithLabelValues("limited")); got < 100 {
		t.Errorf("%v limited calls are counted", got)
	}
	// A replay does not use up the rate.
	h.now = h.now.Add(time.Hour)
	token := a.sign(h, nil)
	h.want(token, 200, "", "")
	for range 2 * unlistedPace.burst {
		h.want(token, 401, "BadJwtReplay", "")
	}
	h.want(a.sign(h, nil), 200, "", "")
}

// An owner that floods the hold does not keep others from reporting.
func TestOwnerFlood(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	registry, owner := d.account(h, testPLC(1)), d.account(h, testPLC(2))
	h.want(owner.sign(h, nil), 200, "", "")
	for i := range 2 * maxUsedTokens {
		h.owners.add(testTokenID(i), tokenUse{owner.did, h.now.Add(time.Minute)}, h.now)
	}
	h.want(owner.sign(h, nil), 429, "RateLimitExceeded", "")
	h.want(registry.sign(h, nil), 200, "", "")
	if got := h.owners.add(testTokenID(-1), tokenUse{"did:plc:other", h.now.Add(time.Minute)}, h.now); got != tokenNew {
		t.Errorf("another owner: %v", got)
	}
}

// Tokens of invented issuers cause few fetches, from one client and from many, do not
// displace the key of an account in use, and do not affect configured accounts.
func TestInventedIssuers(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	registry, known, forger := d.account(h, testPLC(1)), d.account(h, testPLC(40)), &account{}
	forger.key = known.key
	h.want(known.sign(h, nil), 200, "", "")
	invented := 1000
	attack := func(clients, calls int) (statuses map[int]int, fetches int64) {
		before := d.requests.Load()
		statuses = map[int]int{}
		for i := range calls {
			invented++
			forger.did = testPLC(invented)
			statuses[statusOf(h.callFrom(testAddr(1000+i%clients), forger.sign(h, nil)))]++
		}
		return statuses, d.requests.Load() - before
	}
	if got, fetches := attack(1, 200); fetches != resolvesPerClient || got[503] != resolvesPerClient || got[429] != 200-resolvesPerClient {
		t.Errorf("one client: %v with %d fetches", got, fetches)
	}
	if got, fetches := attack(500, 1000); fetches > resolvesTotal || got[429] < 500 {
		t.Errorf("many clients: %v with %d fetches", got, fetches)
	}
	h.want(known.sign(h, nil), 200, "", "")
	h.want(registry.sign(h, nil), 200, "", "")

	// A failure is cached for a while, and the limit is one of a window.
	h.now = h.now.Add(resolveWindow)
	failing := func() int64 {
		before := d.requests.Load()
		for range 5 {
			forger.did = testPLC(50)
			h.want(forger.sign(h, nil), 503, "ServiceUnavailable", "")
		}
		return d.requests.Load() - before
	}
	for range 2 {
		if fetches := failing(); fetches != 1 {
			t.Errorf("%d fetches for an account that can't be resolved", fetches)
		}
		h.now = h.now.Add(unlistedRetry)
	}
	// A forged token of an account whose key is known.
	before := d.requests.Load()
	other := d.account(h, testPLC(41))
	other.did = known.did
	for range 5 {
		h.want(other.sign(h, nil), 401, "BadJwtSignature", "")
	}
	if fetches := d.requests.Load() - before; fetches != 1 {
		t.Errorf("%d fetches because of forged tokens", fetches)
	}
	h.want(known.sign(h, nil), 200, "", "")
}

// Hosts that do not answer delay few calls.
func TestSlowInventedIssuers(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	registry := d.account(h, testPLC(1))
	key := registry.key
	release := make(chan struct{})
	var running, most atomic.Int64
	const calls = 300
	for i := range calls {
		d.set(testPLC(2000+i), func(http.ResponseWriter, *http.Request) {
			n := running.Add(1)
			defer running.Add(-1)
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
			<-release
		})
	}
	statuses := make(chan int, calls)
	for i := range calls {
		a := &account{did: testPLC(2000 + i), key: key}
		token := a.sign(h, nil)
		go func() { statuses <- statusOf(h.callFrom(testAddr(i), token)) }()
	}
	limited := 0
	for limited < calls-resolvesAtOnce { // the others wait for a host
		if got := <-statuses; got != 429 {
			t.Errorf("got %d", got)
		}
		limited++
	}
	h.want(registry.sign(h, nil), 200, "", "")
	close(release)
	for range resolvesAtOnce {
		if got := <-statuses; got != 503 {
			t.Errorf("a slow host: got %d", got)
		}
	}
	if n := most.Load(); n > resolvesAtOnce {
		t.Errorf("%d fetches at once", n)
	}
	if n := h.unlisted.keys.running.InUse() + h.unlisted.keys.waiting.InUse(); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
}

// Calls that wait for the same document are limited as well.
func TestManyWaitForOneDocument(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	a := d.account(h, testPLC(60))
	doc, release := a.document(h).Body, make(chan struct{})
	d.set(a.did, func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = w.Write([]byte(doc)) })
	const calls = 100
	statuses := make(chan int, calls)
	for range calls {
		token := a.sign(h, nil)
		go func() { statuses <- statusOf(h.callFrom(testAddr(1), token)) }()
	}
	for range calls - resolveWaiters/4 {
		if got := <-statuses; got != 429 {
			t.Errorf("got %d", got)
		}
	}
	close(release)
	for range resolveWaiters / 4 {
		if got := <-statuses; got != 200 {
			t.Errorf("after the answer: got %d", got)
		}
	}
	if n := d.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// With PullsTrusted an unlisted account is refused before anything is fetched.
func TestTrustedPulls(t *testing.T) {
	t.Parallel()
	h, d := newOpenCallers(t)
	h.anyone = false
	h.want(d.account(h, testPLC(70)).sign(h, nil), 403, "Forbidden", "hold.registries or hold.owners")
	if n := d.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	for _, p := range []Pulls{"", "all", "Trusted"} {
		if p.Check() == nil {
			t.Errorf("%q is valid", p)
		}
	}
}

// After the clock was set back, limits end as after a restart.
func TestPaceAfterClockIsSetBack(t *testing.T) {
	t.Parallel()
	p := newIssuerPace(pace{2, time.Second}, pace{10, time.Second}, 10)
	now := time.Now()
	for i, want := range []time.Duration{0, 0, time.Second, time.Second} {
		if got := p.allow("a", now); got != want {
			t.Errorf("call %d: wait %v, want %v", i, got, want)
		}
	}
	if got := p.allow("a", now.Add(-time.Hour)); got != 0 {
		t.Errorf("an hour earlier: wait %v", got)
	}
	c := &windowCounter[int]{window: time.Minute, total: 1, perKey: 1}
	c.add(1, now)
	if _, ok := c.add(2, now); ok {
		t.Error("an attempt over the limit")
	}
	if _, ok := c.add(2, now.Add(-time.Hour)); !ok {
		t.Error("an hour earlier an attempt is refused")
	}
}
