package compare

import (
	"fmt"
	"strings"
)

const (
	taken  = "the hold names the key instead of an internal error"
	bug    = "an internal error of the reference; the hold reports the invalid value"
	strict = "the hold validates records strictly"
	typed  = "only the hold has a schema of this collection"
)

// layer is a record of the hold's own collection.
const layer = `{"digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","size":1234,` +
	`"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","manifest":"at://{did}/io.atcr.manifest/abc",` +
	`"userDid":"{did}","createdAt":"2026-01-02T03:04:05Z"}`

func applyWritesRows() []row {
	return []row{
		{name: "1 create", post: applyWrites, body: batch(many(1)...), want: ok, moves: true},
		{name: "10 creates", post: applyWrites, body: batch(many(10)...), want: ok, moves: true},
		{name: "200 creates", post: applyWrites, body: batch(many(200)...), want: ok, moves: true},
		{name: "201 creates", post: applyWrites, body: batch(many(201)...), want: invalid},
		{name: "no writes", post: applyWrites, body: batch(), want: ok, moves: true},

		{name: "unknown lexicon, validate", post: applyWrites, body: batchWith(`"validate":true`, many(1)...), want: invalid},
		{name: "unknown lexicon, validate false", post: applyWrites, body: batchWith(`"validate":false`, many(1)...), want: ok, moves: true},
		{name: "validate null", post: applyWrites, body: batchWith(`"validate":null`, many(1)...), want: invalid},
		{name: "validate is a string", post: applyWrites, body: batchWith(`"validate":"true"`, many(1)...), want: invalid},
		{name: "layer", post: applyWrites, body: batch(create("io.atcr.hold.layer", "3kabcdefgh222", layer)), want: ok, moves: true,
			more: "$.results[].validationStatus", less: "$.results[].validationStatus", why: typed},

		{name: "rkey", post: applyWrites, body: batch(create(thing, "one", `{"n":1}`)), want: ok, moves: true, save: map[string]string{"one": "results.0.cid"}},
		{name: "rkey with a colon", post: applyWrites, body: batch(create(thing, "sha256:abc", `{"n":1}`)), want: ok, moves: true},
		{name: "rkey of 512 bytes", post: applyWrites, body: batch(create(thing, strings.Repeat("k", 512), `{"n":1}`)), want: ok, moves: true},
		{name: "rkey of all valid characters", post: applyWrites, body: batch(create(thing, "aZ09_~.:-", `{"n":1}`)), want: ok, moves: true},
		{name: "rkey exists, other content", post: applyWrites, body: batch(create(thing, "one", `{"n":2}`)), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordAlreadyExists"), why: taken},
		{name: "rkey exists, same content", post: applyWrites, body: batch(create(thing, "one", `{"n":1}`)), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordAlreadyExists"), why: taken},
		{name: "rkey twice in a batch", post: applyWrites, body: batch(create(thing, "twice", `{"n":1}`), create(thing, "twice", `{"n":2}`)), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordAlreadyExists"), why: taken},
		{name: "one of three exists", post: applyWrites, body: batch(create(thing, "new-1", `{}`), create(thing, "one", `{}`), create(thing, "new-2", `{}`)), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordAlreadyExists"), why: taken},
		{name: "no record of the failed batch", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=new-1", want: badRequest("RecordNotFound")},
		{name: "update of a missing record", post: applyWrites, body: batch(update(thing, "missing", `{}`)), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordNotFound"), why: taken},
		{name: "delete of a missing record", post: applyWrites, body: batch(remove(thing, "missing")), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordNotFound"), why: taken},

		{name: "update", post: applyWrites, body: batch(update(thing, "one", `{"n":3}`)), want: ok, moves: true},
		{name: "update, same content", post: applyWrites, body: batch(update(thing, "one", `{"n":3}`)), want: ok, moves: true},
		{name: "update, same key twice", post: applyWrites, body: batch(update(thing, "one", `{"n":4}`), update(thing, "one", `{"n":5}`)), want: ok, moves: true},
		{name: "delete", post: applyWrites, body: batch(remove(thing, "sha256:abc")), want: ok, moves: true},
		{name: "update without rkey", post: applyWrites, body: batch(update(thing, "", `{}`)), want: invalid},
		{name: "delete without rkey", post: applyWrites, body: batch(remove(thing, "")), want: invalid},
		{name: "delete with a value", post: applyWrites, body: batch(create(thing, "with-value", `{}`), write("delete", thing, "with-value", `{"n":1}`)), want: ok, moves: true},
	}
}

func batchRows() []row {
	badKey := func(key string) string { return batch(create(thing, "x", `{}`), write("create", thing, key, `{}`)) }
	return []row{
		{name: "create and delete", post: applyWrites, body: batch(create(thing, "brief", `{}`), remove(thing, "brief")), want: ok, moves: true},
		{name: "create and update", post: applyWrites, body: batch(create(thing, "changed", `{"n":1}`), update(thing, "changed", `{"n":2}`)), want: ok, moves: true},
		{name: "result of create and update", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=changed", want: ok},
		{name: "delete and create", post: applyWrites, body: batch(remove(thing, "changed"), create(thing, "changed", `{"n":3}`)), want: ok, moves: true},

		{name: "swapCommit", post: applyWrites, body: batchWith(`"swapCommit":"{head}"`, many(1)...), want: ok, moves: true},
		{name: "swapCommit wrong", post: applyWrites, body: batchWith(`"swapCommit":"{one}"`, many(1)...), want: badRequest("InvalidSwap")},
		{name: "invalid swapCommit", post: applyWrites, body: batchWith(`"swapCommit":"zzz"`, many(1)...), want: invalid},
		{name: "swapCommit null", post: applyWrites, body: batchWith(`"swapCommit":null`, many(1)...), want: invalid},
		{name: "swapCommit empty", post: applyWrites, body: batchWith(`"swapCommit":""`, many(1)...), want: invalid},
		{name: "swapCommit is a CIDv0", post: applyWrites, body: batchWith(`"swapCommit":"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"`, many(1)...), want: badRequest("InvalidSwap")},

		{name: "rkey a/b", post: applyWrites, body: badKey("a/b"), want: invalid},
		{name: "rkey .", post: applyWrites, body: badKey("."), want: invalid},
		{name: "rkey ..", post: applyWrites, body: badKey(".."), want: invalid},
		{name: "rkey empty", post: applyWrites, body: `{"repo":"{did}","writes":[{"$type":"` + applyWrites + `#create","collection":"` + thing + `","rkey":"","value":{}}]}`, want: invalid},
		{name: "rkey with a space", post: applyWrites, body: badKey("a b"), want: invalid},
		{name: "rkey with @", post: applyWrites, body: badKey("a@b"), want: invalid},
		{name: "rkey in another alphabet", post: applyWrites, body: badKey("schlüssel"), want: invalid},
		{name: "rkey is a number", post: applyWrites, body: `{"repo":"{did}","writes":[{"$type":"` + applyWrites + `#create","collection":"` + thing + `","rkey":5,"value":{}}]}`, want: invalid},
		{name: "rkey of 513 bytes", post: applyWrites, body: badKey(strings.Repeat("k", 513)), want: invalid},
		{name: "collection of two segments", post: applyWrites, body: batch(create("foo.bar", "", `{}`)), want: invalid},
		{name: "invalid collection", post: applyWrites, body: batch(create("no nsid", "", `{}`)), want: invalid},
		{name: "collection ends with a digit", post: applyWrites, body: batch(create("com.example.3", "", `{}`)), want: invalid},
		{name: "collection of 318 bytes", post: applyWrites, body: batch(create("com.example."+strings.Repeat("a", 306), "", `{}`)), want: invalid},
		{name: "collection missing", post: applyWrites, body: `{"repo":"{did}","writes":[{"$type":"` + applyWrites + `#create","value":{}}]}`, want: invalid},
		{name: "value missing", post: applyWrites, body: batch(write("create", thing, "", "")), want: invalid},
		{name: "value is a string", post: applyWrites, body: batch(create(thing, "", `"text"`)), want: invalid},
		{name: "value is a list", post: applyWrites, body: batch(create(thing, "", `[]`)), want: invalid},
		{name: "value is null", post: applyWrites, body: batch(create(thing, "", `null`)), want: invalid},
		{name: "value without $type", post: applyWrites, body: batch(create(thing, "untyped", `{"n":1}`)), want: ok, moves: true},
		{name: "$type was added", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=untyped", want: ok},
		{name: "value of another $type", post: applyWrites, body: batch(create(thing, "", `{"$type":"com.example.other"}`)), want: invalid},
		{name: "value with $type that is a number", post: applyWrites, body: batch(create(thing, "", `{"$type":5}`)), want: invalid},
		{name: "value with empty $type", post: applyWrites, body: batch(create(thing, "", `{"$type":""}`)), want: invalid},
		{name: "write without $type", post: applyWrites, body: `{"repo":"{did}","writes":[{"collection":"` + thing + `","value":{}}]}`, want: invalid},
		{name: "write of another $type", post: applyWrites, body: `{"repo":"{did}","writes":[{"$type":"` + applyWrites + `#upsert","collection":"` + thing + `","rkey":"x","value":{}}]}`, want: invalid},
		{name: "write with a short $type", post: applyWrites, body: `{"repo":"{did}","writes":[{"$type":"#create","collection":"` + thing + `","rkey":"x","value":{}}]}`, want: invalid},
		{name: "write is null", post: applyWrites, body: `{"repo":"{did}","writes":[null]}`, want: invalid},
		{name: "writes is an object", post: applyWrites, body: `{"repo":"{did}","writes":{}}`, want: invalid},
		{name: "writes missing", post: applyWrites, body: `{"repo":"{did}"}`, want: invalid},
		{name: "unknown member", post: applyWrites, body: batchWith(`"extra":{"a":1}`, many(1)...), want: ok, moves: true},
	}
}

func dataModelRows() []row {
	value := func(v string) string { return batch(create(thing, "", v)) }
	deep := func(n int) string {
		return value(`{"v":` + strings.Repeat(`{"v":`, n) + `1` + strings.Repeat(`}`, n) + `}`)
	}
	const cidV1 = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
	return []row{
		{name: "float", post: applyWrites, body: value(`{"size":1.5}`), want: invalid},
		{name: "float without a fraction", post: applyWrites, body: value(`{"size":1.0}`), want: ok, moves: true},
		{name: "exponent without a fraction", post: applyWrites, body: value(`{"size":1e3}`), want: ok, moves: true},
		{name: "minus zero", post: applyWrites, body: value(`{"size":-0}`), want: ok, moves: true},
		{name: "2^53-1", post: applyWrites, body: value(`{"size":9007199254740991}`), want: ok, moves: true},
		{name: "-(2^53-1)", post: applyWrites, body: value(`{"size":-9007199254740991}`), want: ok, moves: true},
		{name: "2^53", post: applyWrites, body: value(`{"size":9007199254740992}`), want: answer{500, "InternalServerError"}, ours: differs(400, "InvalidRequest"), why: bug},
		{name: "1e400", post: applyWrites, body: value(`{"size":1e400}`), want: invalid},
		{name: "null, booleans, lists", post: applyWrites, body: value(`{"a":null,"b":true,"c":[1,[],{}],"d":""}`), want: ok, moves: true},
		{name: "link", post: applyWrites, body: value(`{"v":{"$link":"` + cidV1 + `"}}`), want: ok, moves: true},
		{name: "link with an invalid CID", post: applyWrites, body: value(`{"v":{"$link":"zzz"}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "link with another member", post: applyWrites, body: value(`{"v":{"$link":"` + cidV1 + `","x":1}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "bytes", post: applyWrites, body: value(`{"v":{"$bytes":"nFERjvLLiw9qm45JrqH9QTzyC2Lu1Xb4ne6+sBrCzI0"}}`), want: ok, moves: true},
		{name: "bytes, padded", post: applyWrites, body: value(`{"v":{"$bytes":"YWE="}}`), want: ok, moves: true},
		{name: "bytes with invalid base64", post: applyWrites, body: value(`{"v":{"$bytes":"!"}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "empty nested $type", post: applyWrites, body: value(`{"v":{"$type":""}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "nested $type that is a number", post: applyWrites, body: value(`{"v":{"$type":5}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "30 levels", post: applyWrites, body: deep(30), want: ok, moves: true},
		{name: "duplicate key", post: applyWrites, body: value(`{"v":1,"v":2}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
		{name: "unknown member with $", post: applyWrites, body: value(`{"$new":1}`), want: ok, moves: true},
		{name: "__proto__", post: applyWrites, body: value(`{"__proto__":{"a":1}}`), want: invalid},
		{name: "emoji, NUL and other characters", post: applyWrites, body: value(`{"v":"\ud83d\ude00 \u0000 \u2028"}`), want: ok, moves: true},
		{name: "lone surrogate", post: applyWrites, body: value(`{"v":"\ud83d"}`), want: ok, moves: true, ours: differs(400, "SyntaxError"), why: strict},
		{name: "blob that was not uploaded", post: applyWrites, body: value(`{"v":{"$type":"blob","ref":{"$link":"bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"},"mimeType":"image/png","size":3}}`), want: badRequest("BlobNotFound")},
		{name: "legacy blob", post: applyWrites, body: value(`{"v":{"cid":"bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy","mimeType":"image/png"}}`), want: invalid},
		{name: "blob without size", post: applyWrites, body: value(`{"v":{"$type":"blob","ref":{"$link":"bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"},"mimeType":"image/png"}}`), want: ok, moves: true, ours: differs(400, "InvalidRequest"), why: strict},
	}
}

// requestRows vary headers, encodings and sizes of requests.
func requestRows() []row {
	record := func(n int) string { return create(thing, "", `{"v":"`+strings.Repeat("v", n)+`"}`) }
	fill := func(size int) string { // a batch with one record, of the given size
		return batch(record(size - len(batch(record(0))) + len("{did}")))
	}
	large := make([]string, 200)
	for i := range large {
		large[i] = record(4810)
	}
	return []row{
		{name: "a record of 999 kB", post: applyWrites, body: fill(999_000), want: ok, moves: true},
		{name: "200 records in 990 kB", post: applyWrites, body: batch(large...), want: ok, moves: true},
		{name: "over 1,000,000 bytes", post: applyWrites, body: fill(1_000_200), want: answer{413, "PayloadTooLargeError"}},
		{name: "5 MB", post: applyWrites, body: fill(5_000_000), want: answer{413, "PayloadTooLargeError"}},
		{name: "5 MB, no session", post: applyWrites, as: "anonymous", body: fill(5_000_000), want: answer{401, "AuthMissing"}},
		{name: "invalid JSON", post: applyWrites, body: `{"repo":"{did}",`, want: badRequest("SyntaxError")},
		{name: "trailing data after the JSON", post: applyWrites, body: batch() + "x", want: badRequest("SyntaxError")},
		{name: "JSON list", post: applyWrites, body: `[]`, want: invalid},
		{name: "JSON string", post: applyWrites, body: `"text"`, want: badRequest("SyntaxError")},
		{name: "JSON null", post: applyWrites, body: `null`, want: badRequest("SyntaxError")},
		{name: "no body", post: applyWrites, want: invalid},
		{name: "text/plain", post: applyWrites, body: batch(), contentType: "text/plain", want: invalid},
		{name: "JSON with a charset", post: applyWrites, body: batch(), contentType: "application/json; charset=utf-8", want: ok, moves: true},
		{name: "no content type", post: applyWrites, body: batch(), contentType: "none", want: invalid},
		{name: "invalid gzip", post: applyWrites, body: batch(), header: map[string]string{"Content-Encoding": "gzip"}, want: badRequest("Error"), ours: differs(400, "InvalidRequest"), why: "the reference exposes an internal error name"},
		{name: "gzip", post: applyWrites, body: batch(many(1)...), header: map[string]string{"Content-Encoding": "gzip"}, compress: true, want: ok, moves: true},
		{name: "unknown encoding", post: applyWrites, body: batch(many(1)...), header: map[string]string{"Content-Encoding": "lzma"}, want: answer{415, "UnsupportedMediaTypeError"}},
		{name: "a byte order mark", post: applyWrites, body: "\ufeff" + batch(many(1)...), want: ok, moves: true},
		{name: "slash after the method", post: applyWrites + "/", body: batch(many(1)...), want: ok, moves: true},
		{name: "two slashes after the method", post: applyWrites + "//", body: batch(many(1)...), want: invalid},
		{name: "GET", get: applyWrites, want: invalid},
		{name: "PUT", post: applyWrites, verb: "PUT", body: batch(), want: invalid},
		{name: "POST of a query", post: "com.atproto.sync.getLatestCommit?did={did}", body: `{}`, want: invalid},
		{name: "repo missing", post: applyWrites, body: `{"writes":[]}`, want: invalid},
		{name: "repo is a number", post: applyWrites, body: `{"repo":5,"writes":[]}`, want: invalid},
		{name: "repo neither DID nor handle", post: applyWrites, body: `{"repo":"nobody here","writes":[]}`, want: invalid},
		{name: "repo is the handle", post: applyWrites, body: strings.Replace(batch(), "{did}", "{handle}", 1), want: ok, moves: true},
		{name: "repo is another handle", post: applyWrites, body: strings.Replace(batch(), "{did}", "bob.test", 1), want: answer{403, "AccountNotFound"}},
		{name: "unknown repo", post: applyWrites, body: strings.Replace(batch(), "{did}", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", 1), want: answer{403, "AccountNotFound"}},
		{name: "unknown method", get: "com.example.nothing", want: invalid, ours: unserved, why: unknown},
		{name: "unknown method, logged in", post: "com.example.nothing", want: invalid, ours: unserved, why: unknown},
		{name: "no method", get: "nothing", want: invalid},
		{name: "health", get: "_health", as: "anonymous", want: ok},
	}
}

func recordRows() []row {
	path := "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey="
	return []row{
		{name: "createRecord", post: createRecord, body: record(thing, "c1", `{"n":1}`, ""), want: ok, moves: true, save: map[string]string{"c1": "cid"}},
		{name: "createRecord, no rkey", post: createRecord, body: record(thing, "", `{"n":1}`, ""), want: ok, moves: true},
		{name: "createRecord, rkey exists", post: createRecord, body: record(thing, "c1", `{"n":1}`, ""), want: answer{500, "InternalServerError"}, ours: differs(400, "RecordAlreadyExists"), why: taken},
		{name: "createRecord, validate", post: createRecord, body: record(thing, "", `{}`, `"validate":true`), want: invalid},
		{name: "createRecord, validate false", post: createRecord, body: record(thing, "", `{}`, `"validate":false`), want: ok, moves: true},
		{name: "createRecord, swapCommit", post: createRecord, body: record(thing, "", `{}`, `"swapCommit":"{head}"`), want: ok, moves: true},
		{name: "createRecord, swapCommit wrong", post: createRecord, body: record(thing, "", `{}`, `"swapCommit":"{one}"`), want: badRequest("InvalidSwap")},
		{name: "createRecord, no record", post: createRecord, body: record(thing, "", "", ""), want: invalid},
		{name: "createRecord, invalid rkey", post: createRecord, body: record(thing, "a/b", `{}`, ""), want: invalid},
		{name: "createRecord, other $type", post: createRecord, body: record(thing, "", `{"$type":"com.example.other"}`, ""), want: invalid},
		{name: "createRecord, unknown repo", post: createRecord, body: strings.Replace(record(thing, "", `{}`, ""), "{did}", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", 1), want: answer{403, "AccountNotFound"}},
		{name: "createRecord, float", post: createRecord, body: record(thing, "", `{"n":1.5}`, ""), want: invalid},
		{name: "createRecord, blob that was not uploaded", post: createRecord, body: record(thing, "", `{"v":{"$type":"blob","ref":{"$link":"bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"},"mimeType":"image/png","size":3}}`, ""), want: badRequest("BlobNotFound")},
		{name: "createRecord, no session", post: createRecord, as: "anonymous", body: record(thing, "", `{}`, ""), want: answer{401, "AuthMissing"}},

		{name: "putRecord, new", post: putRecord, body: record(thing, "p1", `{"n":1}`, ""), want: ok, moves: true, save: map[string]string{"p1": "cid"}},
		{name: "putRecord, same content", post: putRecord, body: record(thing, "p1", `{"n":1}`, ""), want: ok},
		{name: "putRecord, other content", post: putRecord, body: record(thing, "p1", `{"n":2}`, ""), want: ok, moves: true, save: map[string]string{"p2": "cid"}},
		{name: "putRecord, swapRecord", post: putRecord, body: record(thing, "p1", `{"n":3}`, `"swapRecord":"{p2}"`), want: ok, moves: true},
		{name: "putRecord, swapRecord wrong", post: putRecord, body: record(thing, "p1", `{"n":4}`, `"swapRecord":"{p1}"`), want: badRequest("InvalidSwap")},
		{name: "putRecord, swapRecord wrong, same content", post: putRecord, body: record(thing, "p1", `{"n":3}`, `"swapRecord":"{p1}"`), want: ok},
		{name: "putRecord, swapRecord null, existing record", post: putRecord, body: record(thing, "p1", `{"n":4}`, `"swapRecord":null`), want: badRequest("InvalidSwap")},
		{name: "putRecord, swapRecord null, missing record", post: putRecord, body: record(thing, "p3", `{"n":4}`, `"swapRecord":null`), want: ok, moves: true},
		{name: "putRecord, swapRecord, missing record", post: putRecord, body: record(thing, "p4", `{"n":4}`, `"swapRecord":"{p1}"`), want: badRequest("InvalidSwap")},
		{name: "putRecord, invalid swapRecord", post: putRecord, body: record(thing, "p1", `{"n":4}`, `"swapRecord":"zzz"`), want: invalid},
		{name: "putRecord, swapCommit wrong", post: putRecord, body: record(thing, "p1", `{"n":5}`, `"swapCommit":"{one}"`), want: badRequest("InvalidSwap")},
		{name: "putRecord, swapCommit wrong, same content", post: putRecord, body: record(thing, "p1", `{"n":3}`, `"swapCommit":"{one}"`), want: ok},
		{name: "putRecord, swapCommit", post: putRecord, body: record(thing, "p1", `{"n":5}`, `"swapCommit":"{head}"`), want: ok, moves: true},
		{name: "putRecord, no rkey", post: putRecord, body: record(thing, "", `{"n":5}`, ""), want: invalid},
		{name: "putRecord, validate", post: putRecord, body: record(thing, "p5", `{"n":5}`, `"validate":true`), want: invalid},
		{name: "putRecord, no session", post: putRecord, as: "anonymous", body: record(thing, "p1", `{}`, ""), want: answer{401, "AuthMissing"}},

		{name: "deleteRecord", post: deleteRecord, body: record(thing, "p3", "", ""), want: ok, moves: true},
		{name: "deleteRecord, missing", post: deleteRecord, body: record(thing, "p3", "", ""), want: ok},
		{name: "deleteRecord, swapRecord wrong", post: deleteRecord, body: record(thing, "p1", "", `"swapRecord":"{p1}"`), want: badRequest("InvalidSwap")},
		{name: "deleteRecord, missing, swapRecord", post: deleteRecord, body: record(thing, "p3", "", `"swapRecord":"{p1}"`), want: ok},
		{name: "deleteRecord, swapCommit wrong", post: deleteRecord, body: record(thing, "p1", "", `"swapCommit":"{one}"`), want: badRequest("InvalidSwap")},
		{name: "deleteRecord, swapRecord null", post: deleteRecord, body: record(thing, "p1", "", `"swapRecord":null`), want: invalid},
		{name: "deleteRecord, swapCommit", post: deleteRecord, body: record(thing, "p1", "", `"swapCommit":"{head}"`), want: ok, moves: true},
		{name: "deleteRecord, no rkey", post: deleteRecord, body: record(thing, "", "", ""), want: invalid},
		{name: "deleteRecord, invalid rkey", post: deleteRecord, body: record(thing, "a/b", "", ""), want: invalid},
		{name: "deleteRecord, no session", post: deleteRecord, as: "anonymous", body: record(thing, "c1", "", ""), want: answer{401, "AuthMissing"}},

		{name: "getRecord", get: path + "c1", want: ok},
		{name: "getRecord, handle", get: "com.atproto.repo.getRecord?repo={handle}&collection=" + thing + "&rkey=c1", want: ok},
		{name: "getRecord, cid", get: path + "c1&cid={c1}", want: ok},
		{name: "getRecord, other cid", get: path + "c1&cid={p2}", want: badRequest("RecordNotFound")},
		{name: "getRecord, invalid cid", get: path + "c1&cid=zzz", want: invalid},
		{name: "getRecord, missing", get: path + "nothing", want: badRequest("RecordNotFound")},
		{name: "getRecord, invalid rkey", get: path + "a/b", want: invalid},
		{name: "getRecord, no rkey", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing, want: invalid},
		{name: "getRecord, rkey twice", get: path + "c1&rkey=c1", want: invalid},
		{name: "getRecord, invalid collection", get: "com.atproto.repo.getRecord?repo={did}&collection=foo.bar&rkey=c1", want: invalid},
		{name: "getRecord, unknown repo", get: "com.atproto.repo.getRecord?repo=did:plc:ewvi7nxzyoun6zhxrhs64oiz&collection=" + thing + "&rkey=c1", want: invalid},
		{name: "getRecord, invalid repo", get: "com.atproto.repo.getRecord?repo=x&collection=" + thing + "&rkey=c1", want: invalid},
		{name: "getRecord, unknown parameter", get: path + "c1&extra=1", want: ok},
		{name: "getRecord, HEAD", get: path + "c1", verb: "HEAD", want: ok},
		{name: "getRecord with an invalid token", get: path + "c1", as: "Bearer garbage", want: ok},
	}
}

// facets returns link facets with these URIs.
func facets(uris ...string) string {
	all := make([]string, len(uris))
	for i, uri := range uris {
		all[i] = `{"index":{"byteStart":0,"byteEnd":1},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"` + uri + `"}]}`
	}
	return "[" + strings.Join(all, ",") + "]"
}

func postRows() []row {
	const at = `"createdAt":"2026-01-02T03:04:05.678Z"`
	p := func(members string) string { return `{"$type":"` + post + `",` + members + `}` }
	good := p(`"text":"see example.com",` + at + `,"langs":["en"],
		"facets":[{"index":{"byteStart":4,"byteEnd":15},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com"}]}],
		"embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://example.com","title":"t","description":"d"}}`)
	graphemes := func(n int, g string) string { return p(`"text":"` + strings.Repeat(g, n) + `",` + at) }
	one := func(name, value string, want answer) row {
		return row{name: name, post: applyWrites, body: batch(create(post, "", value)), want: want, moves: want == ok}
	}
	rows := []row{
		one("link and card", good, ok),
		{name: "validate", post: applyWrites, body: batchWith(`"validate":true`, create(post, "", good)), want: ok, moves: true},
		{name: "with an unknown lexicon", post: applyWrites, body: batch(create(post, "", good), create(thing, "", `{}`)), want: ok, moves: true},
		{name: "batch with one invalid post", post: applyWrites, body: batch(create(thing, "not-written", `{}`), create(post, "", p(`"text":"x"`))), want: invalid},
		{name: "no record of the failed batch", get: "com.atproto.repo.getRecord?repo={did}&collection=" + thing + "&rkey=not-written", want: badRequest("RecordNotFound")},
		{name: "rkey not a TID", post: applyWrites, body: batch(create(post, "my-post", good)), want: invalid},
		{name: "rkey not a TID, validate false", post: applyWrites, body: batchWith(`"validate":false`, create(post, "my-post", good)), want: ok, moves: true},
		{name: "rkey is a TID", post: applyWrites, body: batch(create(post, "3kabcdefgh222", good)), want: ok, moves: true},
		{name: "update with an invalid text", post: applyWrites, body: batch(update(post, "3kabcdefgh222", p(`"text":5,`+at))), want: invalid},
		{name: "putRecord with rkey not a TID", post: putRecord, body: record(post, "my-post-2", good, ""), want: invalid},
		{name: "createRecord", post: createRecord, body: record(post, "", good, ""), want: ok, moves: true},
		{name: "putRecord", post: putRecord, body: record(post, "3kabcdefgh223", good, ""), want: ok, moves: true},
		one("300 graphemes", graphemes(300, "é"), ok),
		one("301 graphemes", graphemes(301, "e"), invalid),
		one("300 families of 7 code points", graphemes(100, "👩‍👩‍👧‍👦"), ok),
		{name: "301 graphemes, validate false", post: applyWrites, body: batchWith(`"validate":false`, create(post, "", graphemes(301, "e"))), want: ok, moves: true},
		one("over 3000 bytes", graphemes(121, "👩‍👩‍👧‍👦"), invalid),
		one("no createdAt", p(`"text":"x"`), invalid),
		one("no text", p(at), invalid),
		one("text is a number", p(`"text":5,`+at), invalid),
		one("text is null", p(`"text":null,`+at), invalid),
		one("card without description", p(`"text":"x",`+at+`,"embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://example.com","title":"t"}}`), invalid),
		one("card with an invalid uri", p(`"text":"x",`+at+`,"embed":{"$type":"app.bsky.embed.external","external":{"uri":"nope","title":"t","description":"d"}}`), invalid),
		one("unknown embed", p(`"text":"x",`+at+`,"embed":{"$type":"com.example.embed","a":1}`), ok),
		one("embed without $type", p(`"text":"x",`+at+`,"embed":{"a":1}`), invalid),
		one("links of all kinds", p(`"text":"x",`+at+`,"facets":`+facets("https://ja.wikipedia.org/wiki/日本", "https://bücher.example/", "HTTPS://EXAMPLE.COM", "https://example.com/👍", "h2:x", "my_app://x")), ok),
		one("link with a blank", p(`"text":"x",`+at+`,"facets":`+facets("https://example.com/a b")), invalid),
		one("link without a host", p(`"text":"x",`+at+`,"facets":`+facets("https:///path")), invalid),
		one("time with an offset of 24 hours", p(`"text":"x","createdAt":"2026-01-02T03:04:05+24:00"`), invalid),
		one("time with an offset of 23 hours", p(`"text":"x","createdAt":"2026-01-02T03:04:05-23:59"`), ok),
		one("300 Devanagari conjuncts", p(`"text":"`+strings.Repeat("क्ष", 300)+`",`+at), ok),
		one("301 Devanagari conjuncts", p(`"text":"`+strings.Repeat("क्ष", 301)+`",`+at), invalid),
		one("language in capitals", p(`"text":"x","langs":["EN"],`+at), invalid),
		one("language with a duplicate variant", p(`"text":"x","langs":["sl-rozaj-rozaj"],`+at), invalid),
		one("facet beyond the text", p(`"text":"x",`+at+`,"facets":[{"index":{"byteStart":0,"byteEnd":99},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com"}]}]`), ok),
		one("facet with a negative index", p(`"text":"x",`+at+`,"facets":[{"index":{"byteStart":-1,"byteEnd":1},"features":[]}]`), invalid),
		one("langs, four", p(`"text":"x",`+at+`,"langs":["a","b","c","d"]`), invalid),
		one("langs, invalid", p(`"text":"x",`+at+`,"langs":["not a language"]`), invalid),
		one("tags, nine", p(`"text":"x",`+at+`,"tags":["1","2","3","4","5","6","7","8","9"]`), invalid),
		one("labels", p(`"text":"x",`+at+`,"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"bot"}]}`), ok),
		one("reply to an invalid URI", p(`"text":"x",`+at+`,"reply":{"root":{"uri":"x","cid":"y"},"parent":{"uri":"x","cid":"y"}}`), invalid),
		one("unknown member", p(`"text":"x",`+at+`,"new":1`), ok),
		{name: "profile", post: putRecord, body: record("app.bsky.actor.profile", "self", `{"displayName":"n"}`, ""), want: ok, moves: true},
		{name: "profile of another key", post: putRecord, body: record("app.bsky.actor.profile", "other", `{"displayName":"n"}`, ""), want: invalid},
		{name: "profile, name too long", post: putRecord, body: record("app.bsky.actor.profile", "self", `{"displayName":"`+strings.Repeat("n", 65)+`"}`, ""), want: invalid},
	}
	noSuchDay := one("createdAt on February 30", p(`"text":"x","createdAt":"2026-02-30T03:04:05Z"`), ok)
	noSuchDay.ours, noSuchDay.why = differs(400, "InvalidRequest"), "there is no such day"
	rows = append(rows, noSuchDay)
	for _, bad := range []string{
		"yesterday", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z",
		"2026-01-02T03:04:05-00:00", "2026-01-02t03:04:05z", "2026-01-02T24:00:00Z", "2026-01-02T03:04:60Z",
		"2026-01-02T03:04:05.Z", "2026-01-02T03:04Z", "",
	} {
		rows = append(rows, one(fmt.Sprintf("createdAt %q", bad), p(`"text":"x","createdAt":"`+bad+`"`), invalid))
	}
	for _, good := range []string{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05+05:45", "2026-01-02T03:04:05.123456789Z", "0001-01-01T00:00:00Z", "0000-01-02T03:04:05Z"} {
		rows = append(rows, one(fmt.Sprintf("createdAt %q", good), p(`"text":"x","createdAt":"`+good+`"`), ok))
	}
	return rows
}
