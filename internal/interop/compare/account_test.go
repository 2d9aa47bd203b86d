package compare

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	account "github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// useAccount writes to both servers with package pds, the client of an account on
// another PDS, which must interpret the responses of both in the same way.
func useAccount(t *testing.T, theirs, ours *side) {
	for _, sd := range []*side{theirs, ours} {
		t.Run(sd.Name, func(t *testing.T) { sd.useAccount(t) })
	}
}

// document returns the DID document that the account would have on the network.
func (sd *side) document(context.Context, string) (*identity.Document, error) {
	return &identity.Document{ID: sd.DID, Service: []identity.Service{{
		ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: sd.URL,
	}}}, nil
}

// accountConfig is the configuration of a client without a session.
func (sd *side) accountConfig(t *testing.T) account.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := account.Config{
		Service: sd.URL, Identifier: sd.DID, Document: sd.document,
		PasswordFile: filepath.Join(dir, "password"), File: filepath.Join(dir, "account.json"),
	}
	if err := os.WriteFile(cfg.PasswordFile, []byte(sd.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func openAccount(t *testing.T, cfg account.Config) *account.Account {
	t.Helper()
	a, err := account.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (sd *side) useAccount(t *testing.T) {
	cfg := sd.accountConfig(t)
	open := func() *account.Account { return openAccount(t, cfg) }
	ctx, a := t.Context(), open()
	clock := syntax.NewTIDClock(7)
	create := func(n int) []repo.Write {
		var writes []repo.Write
		for i := range n {
			record, err := lexicon.Encode(map[string]any{"$type": thing, "n": int64(i), "digest": "sha256:" + strings.Repeat("ab", 32)})
			if err != nil {
				t.Fatal(err)
			}
			writes = append(writes, repo.Write{Action: repo.Create, Collection: thing, RKey: clock.Next().String(), Record: record})
		}
		return writes
	}
	outcome := func(what string, err error, want account.Outcome) {
		t.Helper()
		var e *account.Error
		if !errors.As(err, &e) || e.Outcome != want {
			t.Errorf("%s: got %v, want outcome %v", what, err, want)
		}
	}

	// 200 writes, read back one by one and as a list.
	writes := create(200)
	before, err := a.Rev(ctx)
	if err != nil {
		t.Fatal(err)
	}
	result, err := a.Apply(ctx, writes, nil, account.Normal)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range writes {
		if result.CIDs[i] != block.CIDOf(w.Record) {
			t.Fatalf("write %d is stored as %s, want %s", i, result.CIDs[i], block.CIDOf(w.Record))
		}
	}
	if after, err := a.Rev(ctx); err != nil || after != result.Rev || after <= before {
		t.Errorf("rev %q, then %q (%v), want %q", before, after, err, result.Rev)
	}
	id, value, err := a.Get(ctx, thing, writes[7].RKey)
	if err != nil || id != block.CIDOf(writes[7].Record) || string(value) != string(writes[7].Record) {
		t.Errorf("record 7 is %s with %x, %v", id, value, err)
	}
	for _, reverse := range []bool{false, true} {
		seen := map[string]bool{}
		for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
			var page []repo.Record
			if page, cursor, err = a.List(ctx, thing, cursor, 150, reverse); err != nil {
				t.Fatal(err)
			}
			for i, r := range page {
				seen[r.RKey] = true
				if i > 0 && (page[i-1].RKey < r.RKey) != reverse {
					t.Fatalf("reverse %v: %s comes before %s", reverse, page[i-1].RKey, r.RKey)
				}
			}
		}
		for _, w := range writes {
			if !seen[w.RKey] {
				t.Fatalf("reverse %v: %s is not listed", reverse, w.RKey)
			}
		}
	}

	// Refused writes, and writes whose outcome the client cannot know.
	_, err = a.Apply(ctx, writes[:1], nil, account.Normal)
	var at *repo.WriteError
	if !errors.As(err, &at) {
		outcome("existing record key", err, account.Unknown)
	}
	bad := create(3)
	bad[1].RKey = "a b"
	if _, err = a.Apply(ctx, bad, nil, account.Normal); !errors.As(err, &at) || at.Index != 1 {
		t.Errorf("invalid record key: got %v, want an error of write 1", err)
	}
	if _, _, err = a.Get(ctx, thing, bad[0].RKey); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("record of the refused batch: %v", err)
	}
	_, err = a.Apply(ctx, create(201), nil, account.Normal)
	outcome("201 writes", err, account.Refused)
	swap := block.CIDOf([]byte("another commit"))
	_, err = a.Apply(ctx, create(1), &swap, account.Normal)
	if !errors.As(err, &at) {
		outcome("wrong swapCommit", err, account.Refused)
	}

	// After a restart the session is used again.
	a = open()
	for i := range writes {
		writes[i].Action, writes[i].Record = repo.Delete, nil
	}
	if _, err := a.Apply(ctx, writes, nil, account.Normal); err != nil {
		t.Error(err)
	}
	if _, _, err := a.Get(ctx, thing, writes[0].RKey); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("deleted record: %v", err)
	}

	// An expired access token is refreshed.
	saved, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	token, _, _ := strings.Cut(string(saved)[strings.Index(string(saved), `"accessJwt":"`)+len(`"accessJwt":"`):], `"`)
	if err := os.WriteFile(cfg.File, []byte(strings.Replace(string(saved), token, sd.vars["expired"], 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Apply(ctx, create(1), nil, account.Normal); err != nil {
		t.Errorf("with an expired access token: %v", err)
	}
}

// editProfile changes the declarations of an account with the client of other PDSs.
func editProfile(t *testing.T, theirs, ours *side) {
	for _, sd := range []*side{theirs, ours} {
		t.Run(sd.Name, func(t *testing.T) { sd.editProfile(t) })
	}
}

func (sd *side) editProfile(t *testing.T) {
	ctx, a := t.Context(), openAccount(t, sd.accountConfig(t))
	set := func(what string, set func(context.Context, bool) (bool, error), to, wantChanged bool) {
		t.Helper()
		before, err := a.Rev(ctx)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := set(ctx, to)
		if err != nil || changed != wantChanged {
			t.Fatalf("%s: changed %v, %v", what, changed, err)
		}
		if after, err := a.Rev(ctx); err != nil || (after != before) != wantChanged {
			t.Errorf("%s: rev %s, then %s, %v", what, before, after, err)
		}
	}
	write := func(action repo.Action, record []byte) {
		t.Helper()
		if _, err := a.Apply(ctx, []repo.Write{{Action: action, Collection: lexicon.NSIDProfile, RKey: "self", Record: record}}, nil, account.Normal); err != nil {
			t.Fatal(err)
		}
	}
	profile := func(extra map[string]any, labels ...string) []byte {
		t.Helper()
		var values []map[string]any
		for _, l := range labels {
			values = append(values, map[string]any{"val": l})
		}
		record := map[string]any{"$type": lexicon.NSIDProfile, "labels": map[string]any{"$type": "com.atproto.label.defs#selfLabels", "values": values}}
		maps.Copy(record, extra)
		encoded, err := lexicon.Encode(record)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}

	if _, _, err := a.Get(ctx, lexicon.NSIDProfile, "self"); err == nil { // hold.Init creates one
		write(repo.Delete, nil)
	}
	set("no profile", a.SetBot, true, true)
	set("no change", a.SetBot, true, false)

	more := map[string]any{"displayName": "<Images> & \u2028 \U0001f433", "com.example.most": int64(1<<53 - 1), "com.example.any": map[string]any{
		"bytes": map[string]any{"$bytes": "AQID"}, "link": map[string]any{"$link": block.CIDOf(nil).String()}, "list": []any{nil, false, int64(-1)},
	}}
	write(repo.Update, profile(more, "!no-unauthenticated"))
	set("other members and labels", a.SetBot, true, true)
	if _, got, err := a.Get(ctx, lexicon.NSIDProfile, "self"); err != nil || !bytes.Equal(got, profile(more, "!no-unauthenticated", "bot")) {
		t.Errorf("the profile is %q, %v", got, err)
	}
	set("removed", a.SetBot, false, true)
	if _, got, err := a.Get(ctx, lexicon.NSIDProfile, "self"); err != nil || !bytes.Equal(got, profile(more, "!no-unauthenticated")) {
		t.Errorf("the profile is %q, %v", got, err)
	}

	set("missing declaration", a.SetHide, false, false)
	set("new declaration", a.SetHide, true, true)
	set("same declaration", a.SetHide, true, false)
	if p, err := a.Profile(ctx); err != nil || p.Bot || !p.Hide {
		t.Errorf("profile %+v, %v", p, err)
	}
}
