// Logs in to a running hold with the official client, which validates every
// response, and tests posts, a profile with an avatar, batches, lists and sessions.
// usage: node client.mjs http://HOST DID PASSWORD
import assert from 'node:assert/strict'
import { AtpAgent, RichText } from '@atproto/api'
import { compareAnnouncements } from './facets.mjs'

const [service, did, password] = process.argv.slice(2)
const agent = new AtpAgent({ service })
const { repo, server, sync } = agent.com.atproto
const refuses = (promise, error, status = 400) => assert.rejects(promise, (err) => err.error === error && err.status === status)

// Sessions.
await refuses(agent.login({ identifier: did, password: 'wrong' }), 'AuthenticationRequired', 401)
await refuses(repo.deleteRecord({ repo: did, collection: 'app.bsky.feed.post', rkey: 'x' }), 'AuthMissing', 401)
await agent.login({ identifier: did, password })
assert.equal(agent.did, did)
assert.equal(agent.session.active, true)
const first = { ...agent.session }
await agent.sessionManager.refreshSession()
assert.notEqual(agent.session.refreshJwt, first.refreshJwt)
assert.equal((await server.getSession()).data.did, did)
assert.ok((await server.describeServer()).data.did)

// A post of the client, and reading it.
const text = new RichText({ text: 'pushed: see https://example.com/oss and #images' })
await text.detectFacets(agent)
const posted = await agent.post({ text: text.text, facets: text.facets, langs: ['en'], createdAt: new Date().toISOString() })
const rkey = posted.uri.split('/').at(-1)
const read = await agent.getPost({ repo: did, rkey })
assert.deepEqual(read.cid, posted.cid)
assert.equal(read.value.text, text.text)
assert.equal(read.value.facets.length, 2)
await refuses(repo.getRecord({ repo: did, collection: 'app.bsky.feed.post', rkey: 'absent' }), 'RecordNotFound')
await refuses(agent.post({ text: 'e'.repeat(301) }), 'InvalidRequest')

// Announcements, whose facets are those that the client finds in their texts.
for (let left = 100; ; left--) {
  const found = await compareAnnouncements(agent, did)
  if (found.posts === 4 || left === 0) { // they are written after the pushes
    assert.deepEqual(found, { posts: 4, link: 4, tag: 8, mention: 0 })
    break
  }
  await new Promise((done) => setTimeout(done, 100))
}

// An avatar. upsertProfile reads the profile and writes it with swapRecord.
const picture = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64')
const { blob } = (await agent.uploadBlob(picture, { encoding: 'image/png' })).data
assert.equal(blob.mimeType, 'image/png')
assert.equal(blob.size, picture.length)
await refuses(sync.getBlob({ did, cid: blob.ref.toString() }), 'InvalidRequest') // not referenced
await agent.upsertProfile((old) => ({ ...old, avatar: blob, description: 'images' }))
const profile = (await repo.getRecord({ repo: did, collection: 'app.bsky.actor.profile', rkey: 'self' })).data.value
assert.equal(profile.description, 'images')
const got = await sync.getBlob({ did, cid: blob.ref.toString() })
assert.deepEqual(Buffer.from(got.data), picture)
assert.equal(got.headers['content-type'], 'image/png')
assert.ok((await sync.listBlobs({ did })).data.cids.includes(blob.ref.toString())) // beside the pictures of posts

// Batches in a collection without a schema, and lists with pages.
const collection = 'com.example.thing'
const keys = Array.from({ length: 25 }, (_, i) => `k${String(i).padStart(2, '0')}`)
const creates = keys.map((rkey, n) => ({ $type: 'com.atproto.repo.applyWrites#create', collection, rkey, value: { n } }))
const done = (await repo.applyWrites({ repo: did, writes: creates })).data
assert.equal(done.results.length, keys.length)
const latest = (await sync.getLatestCommit({ did })).data // a pending announcement may add a commit
assert.ok(latest.rev > done.commit.rev || latest.cid === done.commit.cid)
await refuses(repo.applyWrites({ repo: did, writes: [creates[0]] }), 'RecordAlreadyExists')
await refuses(repo.applyWrites({ repo: did, writes: [], swapCommit: posted.cid }), 'InvalidSwap')
for (const reverse of [false, true]) {
  const listed = []
  let cursor
  do {
    const page = (await repo.listRecords({ repo: did, collection, limit: 10, reverse, cursor })).data
    for (const { uri, value } of page.records) {
      listed.push(uri.split('/').at(-1))
      assert.equal(value.n, Number(listed.at(-1).slice(1)))
    }
    cursor = page.records.length > 0 ? page.cursor : undefined
  } while (cursor)
  assert.deepEqual(listed, reverse ? keys : keys.toReversed())
}
const put = { repo: did, collection, rkey: 'k00', record: { $type: collection, n: 100 } }
const { cid } = (await repo.putRecord(put)).data
assert.equal((await repo.putRecord(put)).data.commit, undefined) // unchanged record
await refuses(repo.putRecord({ ...put, record: { $type: collection, n: 101 }, swapRecord: posted.cid }), 'InvalidSwap')
await repo.deleteRecord({ repo: did, collection, rkey: 'k00', swapRecord: cid })
await repo.deleteRecord({ repo: did, collection, rkey: 'k00' })
await agent.deletePost(posted.uri)
assert.ok((await repo.describeRepo({ repo: did })).data.collections.includes(collection))
assert.deepEqual((await sync.listRepos()).data.repos.map((r) => [r.did, r.active]), [[did, true]])

// Service tokens, and the end of a session.
const { token } = (await server.getServiceAuth({ aud: 'did:web:api.example.com', lxm: 'com.example.method' })).data
assert.equal(JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).iss, did)
const last = { ...agent.session }
await agent.logout()
await refuses(server.refreshSession(undefined, { headers: { authorization: `Bearer ${last.refreshJwt}` } }), 'ExpiredToken')
console.log('client: sessions, records, blobs, batches and lists pass')
