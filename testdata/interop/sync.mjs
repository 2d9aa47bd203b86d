// Subscribes to the firehose with the official consumer, which verifies the signature
// and the proofs of each commit: from the beginning over a connection that breaks,
// from a cursor in the middle, without a cursor, and with a future cursor.
// usage: node sync.mjs http://HOST DID PASSWORD
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import net from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { AtpAgent } from '@atproto/api'
import { Secp256k1Keypair } from '@atproto/crypto'
import { IdResolver } from '@atproto/identity'
import atproto from '@atproto/repo'
import { Firehose, MemoryRunner } from '@atproto/sync'

const [service, did, password] = process.argv.slice(2)
const { host, hostname, port } = new URL(service)
const patience = 20_000
const agent = new AtpAgent({ service })
await agent.login({ identifier: did, password })
const { repo, sync } = agent.com.atproto
const idResolver = new IdResolver()

// apply writes one commit and returns what a consumer must see of it.
const collection = 'com.example.sync'
const write = (action, rkey, value) => ({ action, rkey, value })
const apply = async (...list) => {
  const writes = list.map(({ action, ...rest }) => ({ $type: `com.atproto.repo.applyWrites#${action}`, collection, ...rest }))
  const { commit, results } = (await repo.applyWrites({ repo: did, writes })).data
  const ops = list.map(({ action, rkey }, i) => [action, `${collection}/${rkey}`, results[i].cid])
  return { rev: commit.rev, commit: commit.cid, ops }
}
// mark writes a commit with one record. A consumer that has seen it has seen all
// earlier commits.
let marks = 0
const mark = () => apply(write('create', `mark${marks++}`, {}))

// A MemoryRunner connects again with the cursor of the last event that it has handled, so
// that events in its queue would be sent twice. This one handles them first.
class Runner extends MemoryRunner {
  async getCursor() {
    await this.processAll()
    return this.cursor
  }
}

// follow collects the consumer's events, from startCursor if it is set. until waits for
// a commit, failed for the first error.
const follow = (at, startCursor, resolver = idResolver) => {
  const events = []
  const news = new EventEmitter()
  let failure
  const firehose = new Firehose({
    service: `ws://${at}`,
    idResolver: resolver,
    runner: new Runner({ startCursor }),
    handleEvent: (event) => { events.push(event); news.emit('news') },
    onError: (err) => { failure ??= err; news.emit('news') },
    subscriptionReconnectDelay: 10,
  })
  firehose.start()
  const happens = async (is) => {
    const signal = AbortSignal.timeout(patience)
    while (!is()) {
      await once(news, 'news', { signal }).catch(() => {
        throw new Error(`timeout after ${events.length} events, the last at ${events.at(-1)?.rev}`)
      })
    }
  }
  return {
    events,
    until: ({ rev }) => happens(() => { if (failure) throw failure; return events.at(-1)?.rev === rev }),
    failed: () => happens(() => failure).then(() => failure),
    error: () => failure,
    stop: () => firehose.destroy(),
  }
}

// commits groups events by commit, and checks that commits are in order and unique.
const commits = (events) => {
  const list = []
  for (const { event, seq, rev, commit, collection, rkey, cid } of events) {
    if (commit === undefined) continue // an account or identity event
    if (list.at(-1)?.seq !== seq) {
      const last = list.at(-1)
      assert.ok(!last || (seq > last.seq && rev > last.rev), `${seq} (${rev}) after ${last?.seq} (${last?.rev})`)
      list.push({ seq, rev, commit: commit.toString(), ops: [] })
    }
    list.at(-1).ops.push([event, `${collection}/${rkey}`, cid?.toString()])
  }
  return list
}
const withoutSeq = (list) => list.map(({ seq, ...rest }) => rest)

// replay applies the operations of commits, which fails if one is missing or repeated.
const replay = (list) => {
  const records = new Map()
  for (const [action, path, cid] of list.flatMap(({ ops }) => ops)) {
    assert.equal(records.has(path), action !== 'create', `${action} of ${path}`)
    if (action === 'delete') records.delete(path)
    else records.set(path, cid)
  }
  return records
}

// breakable is a proxy of the hold that resets connections: the first ones after the
// given numbers of bytes, all open ones on cut().
const breakable = async (...limits) => {
  const open = new Set()
  let breaks = 0
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), hostname)
    let left = limits.shift() ?? Infinity
    const cut = () => {
      if (!open.delete(cut)) return
      near.resetAndDestroy()
      breaks++
    }
    open.add(cut)
    near.on('data', (data) => far.write(data))
    far.on('data', (data) => {
      near.write(data.subarray(0, left))
      if ((left -= data.length) <= 0) cut()
    })
    for (const end of [near, far]) {
      end.on('error', () => {})
      end.on('close', () => { open.delete(cut); near.destroy(); far.destroy() })
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    at: `127.0.0.1:${server.address().port}`,
    cut: () => open.forEach((cut) => cut()),
    breaks: () => breaks,
    close: () => server.close(),
  }
}

// All events from the beginning, over connections that break within frames.
const line = await breakable(3_000, 60_000, 9_000)
const whole = follow(line.at, 0)
await whole.until(await mark())
assert.equal(line.breaks(), 3)
assert.deepEqual(whole.events.slice(0, 2).map(({ event, did }) => [event, did]), [['identity', did], ['account', did]])

// New events, with another broken connection.
const wrote = []
for (let n = 0; n < 40; n++) {
  if (n === 20) line.cut()
  const changes = [write('create', `a${n}`, { n }), write('create', `b${n}`, { n })]
  if (n > 0) changes.push(write('update', `a${n - 1}`, { n: -n }), write('delete', `b${n - 1}`))
  wrote.push(await apply(...changes))
}
wrote.push(await mark())
await whole.until(wrote.at(-1))
assert.equal(line.breaks(), 4)
const seen = commits(whole.events)
assert.deepEqual(withoutSeq(seen.slice(-wrote.length)), wrote)

// Together the events yield the repo.
const key = await idResolver.did.resolveAtprotoKey(did)
const { creates } = await atproto.verifyRepoCar((await sync.getRepo({ did })).data, did, key)
const held = creates.map(({ collection, rkey, cid }) => [`${collection}/${rkey}`, cid.toString()])
assert.deepEqual([...replay(seen)].sort(), held.sort())

// From a cursor, exactly the later events.
for (const part of [0.1, 0.5, 0.9]) {
  const middle = Math.floor(seen.length * part)
  const rest = follow(host, seen[middle].seq)
  await rest.until(wrote.at(-1))
  assert.deepEqual(commits(rest.events), seen.slice(middle + 1))
  await rest.stop()
}

// Without a cursor, only new events.
const live = follow(host)
const later = []
while (live.events.length === 0) {
  assert.ifError(live.error())
  later.push(await mark())
  await setTimeout(20)
}
later.push(await mark())
await live.until(later.at(-1))
assert.deepEqual(withoutSeq(commits(live.events)), later.slice(later.findIndex(({ rev }) => rev === live.events[0].rev)))

// With a future cursor, an error by its name.
const future = follow(host, (Date.now() + 3_600_000) * 1000)
assert.equal((await future.failed()).cause.error, 'FutureCursor')
assert.equal(future.events.length, 0)

// The verifier must reject another key.
const stranger = (await Secp256k1Keypair.create()).did()
const resolver = { did: { resolve: (did) => idResolver.did.resolve(did), resolveAtprotoKey: async () => stranger } }
const misled = follow(host, seen[0].seq, resolver)
assert.match((await misled.failed()).cause.message, /signature/i)
assert.deepEqual(commits(misled.events), [])

for (const { stop } of [whole, live, future, misled]) await stop()
line.close()
console.log(`firehose: ${seen.length} commits in order and once, over broken connections and from any cursor`)
