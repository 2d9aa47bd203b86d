package hold

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A body that is not valid has exactly this answer.
func TestInvalidNotifications(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t)
	replaced := func(old, new string) string {
		body := notification(old, new)
		if body == notification() {
			t.Fatalf("%q is not in the notification", old)
		}
		return body
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	const repository, tag, userDID, tagged = `"oss/app"`, `"v1"`, `"did:plc:abc"`, `"tag":"v1"`
	digest := `"sha256:` + long(64) + `"`
	manifest := notification()[strings.Index(notification(), `{"mediaType"`) : len(notification())-1]
	for _, tc := range []struct{ name, body, err, message string }{
		{"no JSON", `{`, "SyntaxError", "invalid JSON: …"},
		{"words", `not JSON`, "SyntaxError", "invalid JSON: …"},
		{"more than one value", `{}{}`, "SyntaxError", "invalid JSON: trailing data"},
		{"not UTF-8", "{\"repository\":\"\xff\"}", "SyntaxError", "invalid JSON: invalid UTF-8 after byte 15"},
		{"a lone surrogate", `{"repository":"\ud800"}`, "SyntaxError", "invalid JSON: …"},
		{"deeply nested", `{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "InvalidRequest", "Input/nested too deeply at $.x…"},
		{"a member twice", replaced(tagged, `"tag":"v1","tag":"v2"`), "InvalidRequest", `Input/duplicate key "tag" at $`},
		{"empty", ``, "InvalidRequest", "Request encoding (Content-Type) required but not provided"},
		{"an empty object", `{}`, "InvalidRequest", `Input/missing required key "repository" at $`},
		{"an array", `[` + notification() + `]`, "InvalidRequest", "Input/expected an object at $"},
		{"a string", `"x"`, "SyntaxError", "invalid JSON: expected an object"},
		{"a number", `1`, "SyntaxError", "invalid JSON: expected an object"},
		{"null", `null`, "SyntaxError", "invalid JSON: expected an object"},

		{"no repository", replaced(`"repository":"oss/app",`, ""), "InvalidRequest", `Input/missing required key "repository" at $`},
		{"no userDid", replaced(`"userDid":"did:plc:abc",`, ""), "InvalidRequest", `Input/missing required key "userDid" at $`},
		{"no manifestDigest", replaced(`"manifestDigest":`+digest+`,`, ""), "InvalidRequest", `Input/missing required key "manifestDigest" at $`},
		{"no manifest", replaced(`"manifest":`, `"image":`), "InvalidRequest", `Input/missing required key "manifest" at $`},

		{"repository: number", replaced(repository, `1`), "InvalidRequest", "Input/expected a string at $.repository"},
		{"repository: null", replaced(repository, `null`), "InvalidRequest", "Input/expected a string at $.repository"},
		{"tag: array", replaced(tag, `["v1"]`), "InvalidRequest", "Input/expected a string at $.tag"},
		{"userDid: object", replaced(userDID, `{}`), "InvalidRequest", "Input/expected a string at $.userDid"},
		{"manifestDigest: boolean", replaced(digest, `true`), "InvalidRequest", "Input/expected a string at $.manifestDigest"},
		{"operation: number", replaced(tagged, `"operation":1`), "InvalidRequest", "Input/expected a string at $.operation"},
		{"visibility: null", replaced(tagged, `"visibility":null`), "InvalidRequest", "Input/expected a string at $.visibility"},
		{"manifest: array", replaced(manifest, `[]`), "InvalidRequest", "Input/expected an object at $.manifest"},
		{"manifest: null", replaced(manifest, `null`), "InvalidRequest", "Input/expected an object at $.manifest"},

		{"repository too long", replaced(repository, `"`+long(257)+`"`), "InvalidRequest", "Input/string too big (maximum 256, got 257) at $.repository"},
		{"tag too long", replaced(tag, `"`+long(129)+`"`), "InvalidRequest", "Input/string too big (maximum 128, got 129) at $.tag"},
		{"userDid too long", replaced(userDID, `"did:plc:`+long(2048)+`"`), "InvalidRequest", `Input/invalid DID (got "did:plc:…`},
		{"manifestDigest too long", replaced(digest, `"sha256:`+long(122)+`"`), "InvalidRequest", "Input/string too big (maximum 128, got 129) at $.manifestDigest"},
		{"operation too long", replaced(tagged, `"operation":"`+long(17)+`"`), "InvalidRequest", "Input/string too big (maximum 16, got 17) at $.operation"},
		{"operation", replaced(tagged, `"operation":"delete"`), "InvalidOperation", `invalid operation "delete": use push or pull`},
		{"operation in capitals", replaced(tagged, `"operation":"PUSH"`), "InvalidOperation", `invalid operation "PUSH": use push or pull`},
		{"visibility too long", replaced(tagged, `"visibility":"`+long(17)+`"`), "InvalidRequest", "Input/string too big (maximum 16, got 17) at $.visibility"},
	} {
		refusedAs(t, h, token(registryDID), tc.name, tc.body, tc.err, tc.message)
	}
	if len(n.all) > 0 {
		t.Errorf("%d notifications are recorded: %+v", len(n.all), n.all[0])
	}
}

// A name that is not valid has the same answer, whatever is wrong with it.
func TestInvalidNames(t *testing.T) {
	t.Parallel()
	h, n, token := notifiable(t)
	refuse := func(member, old string, invalid []string, message func(value string) string) {
		t.Helper()
		for _, value := range invalid {
			body := notification(`"`+member+`":"`+old+`"`, `"`+member+`":"`+value+`"`)
			refusedAs(t, h, token(registryDID), member+" "+value, body, "InvalidRequest", message(value))
		}
	}
	same := func(message string) func(string) string { return func(string) string { return message } }
	long := func(n int) string { return strings.Repeat("a", n) }
	refuse("repository", "oss/app", []string{
		"", "/", "oss/", "/oss", "oss//app", "../app", "oss/..", "OSS/app", "oss app", "oss:app", "oss@app", "-oss", "oss.", "oss___app", "öss", "did:plc:abc/app", "private:oss/app", "oss/app\\n", "oss\\u0000",
	}, same("Input/invalid repository name at $.repository"))
	refuse("tag", "v1", []string{".v1", "-v1", "v 1", "v1:", "v/1", "v1\\n", "ü", "v1\\u0000"}, same("Input/invalid tag at $.tag"))
	refuse("userDid", "did:plc:abc", []string{
		"", "abc", "did:", "did:plc:", "did:PLC:abc", "did::abc", "DID:plc:abc", "did:plc:abc:", "did:plc:a b", "did:web:a/b", "did:web:%", "did:plc:abc#atproto", "at://did:plc:abc", "alice.test", "did:plc:ä",
	}, func(did string) string { return fmt.Sprintf("Input/invalid DID (got %q) at $.userDid", did) })
	refuse("manifestDigest", "sha256:"+long(64), []string{
		"", "sha256", "sha256:", "sha256:" + long(63), "sha256:" + long(65), "sha256:" + strings.ToUpper(long(64)), "sha256:" + long(63) + "g", "sha1:" + long(40), "md5:" + long(32), "sha512:" + long(64), long(64), "sha256:" + long(64) + "\\n",
	}, same("Input/invalid digest at $.manifestDigest"))
	if len(n.all) > 0 {
		t.Errorf("%d notifications are recorded: %+v", len(n.all), n.all[0])
	}
}

// refusedAs checks the answer to a body. A message that ends with "…" may continue.
func refusedAs(t *testing.T, h *testHold, token, name, body, err, message string) {
	t.Helper()
	h.Token = token
	resp, raw := h.Do(h.Request("POST", "/xrpc/"+notify, body))
	var got struct{ Error, Message string }
	if json.Unmarshal(raw, &got) != nil {
		t.Fatalf("%s: %s", name, raw)
	}
	exact := got.Message == message
	if begin, open := strings.CutSuffix(message, "…"); open {
		exact = strings.HasPrefix(got.Message, begin)
	}
	if resp.StatusCode != 400 || got.Error != err || !exact {
		t.Errorf("%s: got %d %.300s, want %s %q", name, resp.StatusCode, raw, err, message)
	}
}
