package compare

const (
	otherDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	whole    = "roots 1 head true, blocks true head true"
	lastPage = "the hold returns a cursor only if there are more records"
	noCommit = "roots 0 head false, blocks true head false"
)

func readingRows() []row {
	const list = "com.example.list"
	all := "com.atproto.repo.listRecords?repo={did}&collection=" + list
	return []row{
		{name: "create five records", post: applyWrites, body: batch(create(list, "a", `{"n":1}`), create(list, "b", `{"n":2}`), create(list, "c", `{"n":3}`), create(list, "d", `{"n":4}`), create(list, "e", `{"n":5}`)), want: ok, moves: true},
		{name: "listRecords", get: all, want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, handle", get: "com.atproto.repo.listRecords?repo={handle}&collection=" + list, want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, the newest two", get: all + "&limit=2", want: ok, save: map[string]string{"cursor": "cursor"}},
		{name: "listRecords, the next two", get: all + "&limit=2&cursor={cursor}", want: ok, save: map[string]string{"cursor": "cursor"}},
		{name: "listRecords, the last", get: all + "&limit=2&cursor={cursor}", want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, the oldest two", get: all + "&limit=2&reverse=true", want: ok, save: map[string]string{"cursor": "cursor"}},
		{name: "listRecords, the two after", get: all + "&limit=2&reverse=true&cursor={cursor}", want: ok},
		{name: "listRecords, cursor beyond the end", get: all + "&reverse=true&cursor=zzz", want: ok},
		{name: "listRecords, cursor between records", get: all + "&cursor=bb", want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, limit and reverse empty", get: all + "&limit=&reverse=", want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, cursor empty", get: all + "&cursor=", want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, empty collection", get: "com.atproto.repo.listRecords?repo={did}&collection=com.example.none", want: ok},
		{name: "listRecords, limit 100", get: all + "&limit=100", want: ok, less: "$.cursor", why: lastPage},
		{name: "listRecords, limit 101", get: all + "&limit=101", want: invalid},
		{name: "listRecords, limit 0", get: all + "&limit=0", want: invalid},
		{name: "listRecords, limit not a number", get: all + "&limit=x", want: invalid},
		{name: "listRecords, limit 1.5", get: all + "&limit=1.5", want: invalid},
		{name: "listRecords, reverse not a boolean", get: all + "&reverse=maybe", want: invalid},
		{name: "listRecords, invalid collection", get: "com.atproto.repo.listRecords?repo={did}&collection=foo.bar", want: invalid},
		{name: "listRecords, no collection", get: "com.atproto.repo.listRecords?repo={did}", want: invalid},
		{name: "listRecords, unknown repo", get: "com.atproto.repo.listRecords?repo=" + otherDID + "&collection=" + list, want: invalid},
		{name: "describeRepo", get: "com.atproto.repo.describeRepo?repo={did}", want: ok},
		{name: "describeRepo, handle", get: "com.atproto.repo.describeRepo?repo={handle}", want: ok},
		{name: "describeRepo, unknown account", get: "com.atproto.repo.describeRepo?repo=" + otherDID, want: badRequest("RepoNotFound")},
		{name: "describeRepo, no repo", get: "com.atproto.repo.describeRepo", want: invalid},
	}
}

func blobRows() []row {
	const (
		upload = "com.atproto.repo.uploadBlob"
		png    = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
		absent = "bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"
		get    = "com.atproto.sync.getBlob?did={did}&cid="
	)
	ref := `{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"image/png","size":33}`
	return []row{
		{name: "listBlobs, none", get: "com.atproto.sync.listBlobs?did={did}", want: ok},
		{name: "getBlob, missing", get: get + absent, want: invalid},
		{name: "getBlob, invalid cid", get: get + "zzz", want: invalid},
		{name: "getBlob, no cid", get: "com.atproto.sync.getBlob?did={did}", want: invalid},
		{name: "getBlob, unknown account", get: "com.atproto.sync.getBlob?did=" + otherDID + "&cid=" + absent, want: badRequest("RepoNotFound")},
		{name: "uploadBlob, no session", post: upload, as: "anonymous", body: png, contentType: "image/png", want: answer{401, "AuthMissing"}},
		{name: "uploadBlob", post: upload, body: png, contentType: "image/png", want: ok, save: map[string]string{"blob": "blob.ref.$link"}},
		{name: "uploadBlob, again", post: upload, body: png, contentType: "image/png", want: ok},
		{name: "uploadBlob, wrong type", post: upload, body: png + "x", contentType: "text/plain", want: ok},
		{name: "uploadBlob, type */*", post: upload, body: png + "y", contentType: "*/*", want: ok},
		{name: "uploadBlob, no type", post: upload, body: png + "z", contentType: "none", want: invalid},
		{name: "uploadBlob, text", post: upload, body: "text", contentType: "text/plain", want: ok},
		{name: "uploadBlob, JSON", post: upload, body: `{"a":1}`, contentType: "application/json", want: ok},
		{name: "getBlob, not referenced", get: get + "{blob}", want: invalid},
		{name: "listBlobs, not referenced", get: "com.atproto.sync.listBlobs?did={did}", want: ok},
		{name: "record with another type", post: applyWrites, body: batch(create(thing, "", `{"v":{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"text/plain","size":33}}`)), want: badRequest("InvalidMimeType")},
		{name: "record with another size", post: applyWrites, body: batch(create(thing, "", `{"v":{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"image/png","size":34}}`)), want: badRequest("InvalidSize")},
		{name: "record with the blob", post: applyWrites, body: batch(create(thing, "with-blob", `{"v":`+ref+`}`)), want: ok, moves: true},
		{name: "getBlob", get: get + "{blob}", want: ok},
		{name: "getBlob, HEAD", get: get + "{blob}", verb: "HEAD", want: ok},
		{name: "listBlobs, one", get: "com.atproto.sync.listBlobs?did={did}", want: ok},
		{name: "listBlobs, limit 1001", get: "com.atproto.sync.listBlobs?did={did}&limit=1001", want: invalid},
		{name: "listBlobs, limit 0", get: "com.atproto.sync.listBlobs?did={did}&limit=0", want: invalid},
		{name: "listBlobs, since the head", get: "com.atproto.sync.listBlobs?did={did}&since={rev}", want: ok},
		{name: "listBlobs, invalid since", get: "com.atproto.sync.listBlobs?did={did}&since=x", want: invalid},
		{name: "listBlobs, unknown account", get: "com.atproto.sync.listBlobs?did=" + otherDID, want: badRequest("RepoNotFound")},
		{name: "listMissingBlobs", get: "com.atproto.repo.listMissingBlobs", as: "Bearer {access}", want: ok},
		{name: "avatar", post: putRecord, body: record("app.bsky.actor.profile", "self", `{"avatar":`+ref+`}`, ""), want: ok, moves: true},
		{name: "avatar of another type", post: putRecord, body: record("app.bsky.actor.profile", "self", `{"avatar":{"$type":"blob","ref":{"$link":"{blob}"},"mimeType":"text/plain","size":33}}`, ""), want: invalid},
		{name: "delete one of two references", post: applyWrites, body: batch(remove(thing, "with-blob")), want: ok, moves: true},
		{name: "getBlob, one reference left", get: get + "{blob}", want: ok},
		{name: "delete the last reference", post: deleteRecord, body: record("app.bsky.actor.profile", "self", "", ""), want: ok, moves: true},
		{name: "getBlob, no longer referenced", get: get + "{blob}", want: invalid},
	}
}

func syncRows() []row {
	m := func(name string) string { return "com.atproto.sync." + name }
	rows := []row{
		{name: "getLatestCommit", get: m("getLatestCommit?did={did}"), want: ok, save: map[string]string{"old": "rev", "oldHead": "cid"}},
		{name: "getLatestCommit, unknown account", get: m("getLatestCommit?did=" + otherDID), want: badRequest("RepoNotFound")},
		{name: "getLatestCommit, no did", get: m("getLatestCommit"), want: invalid},
		{name: "getLatestCommit, invalid did", get: m("getLatestCommit?did=x"), want: invalid},
		{name: "getLatestCommit, did empty", get: m("getLatestCommit?did="), want: invalid},
		{name: "getLatestCommit, did twice", get: m("getLatestCommit?did={did}&did={did}"), want: invalid},
		{name: "getLatestCommit, the handle", get: m("getLatestCommit?did={handle}"), want: invalid},
		{name: "getHead", get: m("getHead?did={did}"), want: ok},
		{name: "getHead, unknown account", get: m("getHead?did=" + otherDID), want: badRequest("RepoNotFound")},
		{name: "a further commit", post: applyWrites, body: batch(many(1)...), want: ok, moves: true},
		{name: "getRepo", get: m("getRepo?did={did}"), want: ok, car: whole},
		{name: "getRepo, gzip", get: m("getRepo?did={did}"), header: map[string]string{"Accept-Encoding": "identity"}, want: ok, car: whole},
		{name: "getRepo, HEAD", get: m("getRepo?did={did}"), verb: "HEAD", want: ok},
		{name: "getRepo, unknown account", get: m("getRepo?did=" + otherDID), want: badRequest("RepoNotFound")},
		{name: "getRepo, no did", get: m("getRepo"), want: invalid},
		{name: "getRepo, since the head", get: m("getRepo?did={did}&since={rev}"), want: ok, car: "roots 1 head true, blocks false head false"},
		{name: "getRepo, since an older rev", get: m("getRepo?did={did}&since={old}"), want: ok, car: whole},
		{name: "getRepo, since the first TID", get: m("getRepo?did={did}&since=2222222222222"), want: ok, car: whole},
		{name: "getRepo, since a later rev", get: m("getRepo?did={did}&since=3zzzzzzzzzzzz"), want: ok, car: "roots 1 head true, blocks false head false"},
		{name: "getRepo, since empty", get: m("getRepo?did={did}&since="), want: ok, car: whole},
		{name: "getRecord, commit empty", get: m("getRecord?did={did}&collection=" + thing + "&rkey=c1&commit="), want: ok, car: whole},
		{name: "getLatestCommit, trailing slash", get: m("getLatestCommit/?did={did}"), want: ok},
		{name: "getRepo, invalid since", get: m("getRepo?did={did}&since=x"), want: invalid},
		{name: "getCheckout", get: m("getCheckout?did={did}"), want: ok, car: whole},
		{name: "getCheckout, unknown account", get: m("getCheckout?did=" + otherDID), want: badRequest("RepoNotFound")},
		{name: "getRecord", get: m("getRecord?did={did}&collection=" + thing + "&rkey=c1"), want: ok, car: whole},
		{name: "getRecord, absent", get: m("getRecord?did={did}&collection=" + thing + "&rkey=absent"), want: ok, car: whole},
		{name: "getRecord, absent collection", get: m("getRecord?did={did}&collection=com.example.none&rkey=absent"), want: ok, car: whole},
		{name: "getRecord, unknown account", get: m("getRecord?did=" + otherDID + "&collection=" + thing + "&rkey=c1"), want: badRequest("RepoNotFound")},
		{name: "getRecord, no rkey", get: m("getRecord?did={did}&collection=" + thing), want: invalid},
		{name: "getRecord, invalid rkey", get: m("getRecord?did={did}&collection=" + thing + "&rkey=a/b"), want: invalid},
		{name: "getRecord, invalid collection", get: m("getRecord?did={did}&collection=x&rkey=c1"), want: invalid},
		{name: "getBlocks", get: m("getBlocks?did={did}&cids={c1}&cids={head}"), want: ok, car: "roots 0 head false, blocks true head true"},
		{name: "getBlocks, one", get: m("getBlocks?did={did}&cids={c1}"), want: ok, car: noCommit},
		{name: "getBlocks, one twice", get: m("getBlocks?did={did}&cids={c1}&cids={c1}"), want: ok, car: noCommit},
		{name: "getBlocks, one missing", get: m("getBlocks?did={did}&cids={c1}&cids=bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"), want: invalid},
		{name: "getBlocks, an older commit", get: m("getBlocks?did={did}&cids={oldHead}"), want: invalid},
		{name: "getBlocks, none", get: m("getBlocks?did={did}"), want: invalid},
		{name: "getBlocks, invalid cid", get: m("getBlocks?did={did}&cids=zzz"), want: invalid},
		{name: "getBlocks, unknown account", get: m("getBlocks?did=" + otherDID + "&cids={c1}"), want: badRequest("RepoNotFound")},
		{name: "getRepoStatus", get: m("getRepoStatus?did={did}"), want: ok},
		{name: "getRepoStatus, unknown account", get: m("getRepoStatus?did=" + otherDID), want: badRequest("RepoNotFound")},
		{name: "getRepoStatus, no did", get: m("getRepoStatus"), want: invalid},
		{name: "listRepos", get: m("listRepos"), want: ok, save: map[string]string{"cursor": "cursor"}},
		{name: "listRepos, from the end", get: m("listRepos?cursor={cursor}"), want: ok},
		{name: "listRepos, limit 1000", get: m("listRepos?limit=1000"), want: ok},
		{name: "listRepos, limit 1001", get: m("listRepos?limit=1001"), want: invalid},
		{name: "listRepos, limit 0", get: m("listRepos?limit=0"), want: invalid},
		{name: "listRepos, invalid cursor", get: m("listRepos?cursor=x"), want: invalid},
		{name: "subscribeRepos without an upgrade", get: m("subscribeRepos"), want: invalid},
	}
	for _, name := range []string{"listReposByCollection?collection=" + thing, "listHosts", "getHostStatus?hostname=localhost"} {
		rows = append(rows, row{name: name, get: m(name), want: invalid, ours: unserved, why: unknown})
	}
	for _, name := range []string{"requestCrawl", "notifyOfUpdate"} {
		rows = append(rows, row{name: name, post: m(name), as: "anonymous", body: `{"hostname":"localhost"}`, want: invalid, ours: unserved, why: unknown})
	}
	return rows
}
