package compare

const (
	createSession  = "com.atproto.server.createSession"
	refreshSession = "com.atproto.server.refreshSession"
	deleteSession  = "com.atproto.server.deleteSession"
	getSession     = "com.atproto.server.getSession"
	serviceAuth    = "com.atproto.server.getServiceAuth?aud=did:web:api.example.com"
	noEmail        = "the hold has no e-mail address, and always includes the DID document"
	email          = "$.email $.emailConfirmed"
	didDoc         = "$.didDoc"
)

func serverRows() []row {
	resolve := "com.atproto.identity.resolveHandle?handle="
	return []row{
		{name: "describeServer", get: "com.atproto.server.describeServer", want: ok, less: "$.contact $.links $.blobUploadLimit $.availableUserDomains",
			more: "$.contact $.links $.blobUploadLimit $.availableUserDomains", why: "values that are not configured are omitted"},
		{name: "resolveHandle", get: resolve + "{handle}", want: ok},
		{name: "resolveHandle, capitals", get: resolve + "ALICE.test", want: ok},
		{name: "resolveHandle, unknown handle", get: resolve + "bob.test", want: badRequest("HandleNotFound")},
		{name: "resolveHandle, invalid handle", get: resolve + "x", want: invalid},
		{name: "resolveHandle, no handle", get: "com.atproto.identity.resolveHandle", want: invalid},
	}
}

// sessionRows only change sessions, not the one that the other rows use.
func sessionRows() []row {
	login := func(identifier, password string) string {
		return `{"identifier":"` + identifier + `","password":"` + password + `"}`
	}
	token := func(name, as string, want answer) row {
		return row{name: name, post: applyWrites, as: as, body: batch(), want: want, moves: want == ok}
	}
	return []row{
		token("no header", "anonymous", answer{401, "AuthMissing"}),
		token("forged, valid", "Bearer {forged}", ok),
		token("bearer", "bearer {access}", ok),
		token("expired", "Bearer {expired}", badRequest("ExpiredToken")),
		token("garbage", "Bearer garbage", badRequest("InvalidToken")),
		token("empty", "Bearer ", badRequest("InvalidToken")),
		token("invalid signature", "Bearer {tampered}", badRequest("InvalidToken")),
		token("another aud", "Bearer {wrong aud}", badRequest("InvalidToken")),
		token("no aud", "Bearer {no aud}", badRequest("InvalidToken")),
		{name: "another sub", post: applyWrites, as: "Bearer {wrong sub}", body: batch(), want: answer{401, "AuthenticationRequired"}, ours: differs(400, "InvalidToken"), why: "the hold has one account and issues no tokens to others"},
		token("no sub", "Bearer {no sub}", badRequest("InvalidToken")),
		{name: "no exp", post: applyWrites, as: "Bearer {no exp}", body: batch(), want: ok, moves: true, ours: differs(400, "InvalidToken"), why: "tokens of the hold always expire"},
		token("typ of a refresh token", "Bearer {other typ}", badRequest("InvalidToken")),
		token("scope of a refresh token", "Bearer {refresh in the scope}", badRequest("InvalidToken")),
		token("alg none", "Bearer {alg none}", badRequest("InvalidToken")),
		{name: "HS512", post: applyWrites, as: "Bearer {HS512}", body: batch(), want: ok, moves: true, ours: differs(400, "InvalidToken"), why: "the hold accepts HS256 only"},
		token("unknown scope", "Bearer {bad scope}", badRequest("InvalidToken")),
		token("refresh token", "Bearer {refresh}", badRequest("InvalidToken")),
		token("service token", "Bearer {service}", badRequest("InvalidToken")),
		token("Basic", "Basic YWxpY2U6cGFzcw==", badRequest("InvalidToken")),
		{name: "DPoP", post: applyWrites, as: "DPoP {access}", body: batch(), want: answer{401, "invalid_token"}, ours: differs(400, "InvalidToken"), why: "the hold serves no OAuth"},

		{name: "getSession", get: getSession, as: "Bearer {access}", want: ok, less: email, more: didDoc, why: noEmail},
		{name: "getSession, no session", get: getSession, want: answer{401, "AuthMissing"}},
		{name: "getSession with a refresh token", get: getSession, as: "Bearer {refresh}", want: badRequest("InvalidToken")},
		{name: "getSession, expired", get: getSession, as: "Bearer {expired}", want: badRequest("ExpiredToken")},

		{name: "createSession", post: createSession, as: "anonymous", body: login("{did}", "{password}"), want: ok, less: email, more: didDoc, why: noEmail,
			save: map[string]string{"access2": "accessJwt", "refresh2": "refreshJwt"}},
		{name: "createSession, handle", post: createSession, as: "anonymous", body: login("{handle}", "{password}"), want: ok, less: email, more: didDoc, why: noEmail},
		{name: "createSession, handle in capitals", post: createSession, as: "anonymous", body: login("ALICE.test", "{password}"), want: ok, less: email, more: didDoc, why: noEmail},
		{name: "createSession, wrong password", post: createSession, as: "anonymous", body: login("{did}", "wrong"), want: answer{401, "AuthenticationRequired"}},
		{name: "createSession, unknown user", post: createSession, as: "anonymous", body: login("bob.test", "{password}"), want: answer{401, "AuthenticationRequired"}},
		{name: "createSession, empty", post: createSession, as: "anonymous", body: login("", ""), want: answer{401, "AuthenticationRequired"}},
		{name: "createSession, no password", post: createSession, as: "anonymous", body: `{"identifier":"{did}"}`, want: invalid},
		{name: "createSession, password is a number", post: createSession, as: "anonymous", body: `{"identifier":"{did}","password":5}`, want: invalid},
		{name: "createSession, GET", get: createSession, want: invalid},

		{name: "refreshSession", post: refreshSession, contentType: "none", as: "Bearer {refresh2}", want: ok, less: email, more: didDoc, why: noEmail,
			save: map[string]string{"access3": "accessJwt", "refresh3": "refreshJwt"}},
		{name: "refreshSession, old token again", post: refreshSession, contentType: "none", as: "Bearer {refresh2}", want: ok, less: email, more: didDoc, why: noEmail},
		token("the old access token", "Bearer {access2}", ok),
		token("the new access token", "Bearer {access3}", ok),
		{name: "refreshSession with an access token", post: refreshSession, contentType: "none", as: "Bearer {access2}", want: badRequest("InvalidToken")},
		{name: "refreshSession, no session", post: refreshSession, contentType: "none", as: "anonymous", want: answer{401, "AuthMissing"}},
		{name: "refreshSession, expired", post: refreshSession, contentType: "none", as: "Bearer {expired refresh}", want: badRequest("ExpiredToken")},
		{name: "deleteSession with an access token", post: deleteSession, contentType: "none", as: "Bearer {access3}", want: badRequest("InvalidToken")},
		{name: "deleteSession, no session", post: deleteSession, contentType: "none", as: "anonymous", want: answer{401, "AuthMissing"}},
		{name: "deleteSession", post: deleteSession, contentType: "none", as: "Bearer {refresh3}", want: ok},
		{name: "refreshSession, deleted", post: refreshSession, contentType: "none", as: "Bearer {refresh3}", want: badRequest("ExpiredToken")},
		{name: "the access token of that session", post: applyWrites, as: "Bearer {access3}", body: batch(), want: ok, moves: true,
			ours: differs(400, "ExpiredToken"), why: "a logout ends the session; the reference accepts the access token for up to two hours more"},
		token("the access token of another", "Bearer {access}", ok),
		{name: "deleteSession, again", post: deleteSession, contentType: "none", as: "Bearer {refresh3}", want: ok},

		{name: "getServiceAuth", get: serviceAuth + "&lxm=com.example.method", as: "Bearer {access}", want: ok},
		{name: "getServiceAuth, any method", get: serviceAuth, as: "Bearer {access}", want: ok},
		{name: "getServiceAuth, no session", get: serviceAuth, want: answer{401, "AuthMissing"}},
		{name: "getServiceAuth, invalid aud", get: "com.atproto.server.getServiceAuth?aud=x", as: "Bearer {access}", want: invalid},
		{name: "getServiceAuth, no aud", get: "com.atproto.server.getServiceAuth", as: "Bearer {access}", want: invalid},
		{name: "getServiceAuth, of a service", get: "com.atproto.server.getServiceAuth?aud=did:web:api.example.com%23service&lxm=com.example.method", as: "Bearer {access}", want: ok},
		{name: "getServiceAuth, invalid lxm", get: serviceAuth + "&lxm=x", as: "Bearer {access}", want: invalid},
		{name: "getServiceAuth, a protected method", get: serviceAuth + "&lxm=com.atproto.server.createAppPassword", as: "Bearer {access}", want: invalid},
		{name: "getServiceAuth, past", get: serviceAuth + "&exp=1600000000", as: "Bearer {access}", want: badRequest("BadExpiration")},
		{name: "getServiceAuth, in 30 minutes", get: serviceAuth + "&lxm=com.example.method&exp={in 30 minutes}", as: "Bearer {access}", want: ok},
		{name: "getServiceAuth, any method, in 30 minutes", get: serviceAuth + "&exp={in 30 minutes}", as: "Bearer {access}", want: badRequest("BadExpiration")},
		{name: "getServiceAuth, in 3 hours", get: serviceAuth + "&lxm=com.example.method&exp={in 3 hours}", as: "Bearer {access}", want: badRequest("BadExpiration")},
	}
}
