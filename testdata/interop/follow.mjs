// Reads an account as a follower does, who knows only its handle: finds its PDS and its
// key, exports and verifies the repo, and reads the records back with the official client.
// Prints them as JSON: {did, records: {COLLECTION: [{uri, value}]}}.
// usage: node follow.mjs http://PDS-THAT-RESOLVES-HANDLES http://PLC HANDLE
import assert from 'node:assert/strict'
import { AppBskyFeedPost, AtpAgent, RichText } from '@atproto/api'
import { IdResolver } from '@atproto/identity'
import atproto from '@atproto/repo'

const { verifyRepoCar } = atproto
const [resolver, plcUrl, handle] = process.argv.slice(2)
const { did } = (await new AtpAgent({ service: resolver }).resolveHandle({ handle })).data
const account = await new IdResolver({ plcUrl }).did.resolveAtprotoData(did)
assert.equal(account.handle, handle)

// The export: the signature, the whole tree, and the hash of every record.
const agent = new AtpAgent({ service: account.pds })
const { repo, sync } = agent.com.atproto
const car = (await sync.getRepo({ did })).data
const { creates } = await verifyRepoCar(car, did, account.signingKey)
const stranger = 'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme'
await assert.rejects(verifyRepoCar(car, did, stranger), /signature/i)

// The same records in the lists.
const records = {}
for (const collection of (await repo.describeRepo({ repo: did })).data.collections) {
  records[collection] = []
  let cursor
  do {
    const page = (await repo.listRecords({ repo: did, collection, limit: 100, cursor })).data
    records[collection].push(...page.records)
    cursor = page.records.length > 0 ? page.cursor : undefined
  } while (cursor)
}
const listed = Object.values(records).flat().map(({ uri, cid }) => `${uri} ${cid}`)
const exported = creates.map(({ collection, rkey, cid }) => `at://${did}/${collection}/${rkey} ${cid}`)
assert.deepEqual(listed.sort(), exported.sort())

// Posts, as an app shows them.
for (const { uri, cid } of records['app.bsky.feed.post'] ?? []) {
  const post = await agent.getPost({ repo: handle, rkey: uri.split('/').at(-1) })
  assert.equal(post.cid, cid)
  const valid = AppBskyFeedPost.validateRecord(post.value)
  assert.ok(valid.success, String(valid.error))
  const shown = [...new RichText(post.value).segments()].map((s) => s.text).join('')
  assert.equal(shown, post.value.text)
}
console.log(JSON.stringify({ did, records }))
