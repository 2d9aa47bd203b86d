// Verifies proofs of single records, and the diffs of getRepo with since, with the
// official library.
// usage: node proofs.mjs http://HOST DID PASSWORD
import assert from 'node:assert/strict'
import { AtpAgent } from '@atproto/api'
import { Secp256k1Keypair } from '@atproto/crypto'
import atproto from '@atproto/repo'
import { CID } from 'multiformats/cid'

const { MemoryBlockstore, Repo, readCarWithRoot, verifyDiffCar, verifyProofs } = atproto

const [service, did, password] = process.argv.slice(2)
const doc = await (await fetch(`${service}/.well-known/did.json`)).json()
const key = `did:key:${doc.verificationMethod[0].publicKeyMultibase}`
const agent = new AtpAgent({ service })
await agent.login({ identifier: did, password })
const { repo, sync } = agent.com.atproto
const collection = 'com.example.proof'
const write = (action, rkey, value) => ({ $type: `com.atproto.repo.applyWrites#${action}`, collection, rkey, value })
const apply = async (...writes) => (await repo.applyWrites({ repo: did, writes })).data
const proof = async (rkey) => (await sync.getRecord({ did, collection, rkey })).data

// Enough records for a tree of several levels.
const created = new Map()
const keys = Array.from({ length: 300 }, (_, i) => `k${i * 7919 % 10007}`)
for (let i = 0; i < keys.length; i += 100) {
  const part = keys.slice(i, i + 100)
  const { results } = await apply(...part.map((rkey) => write('create', rkey, { n: rkey })))
  results.forEach((r, j) => created.set(part[j], CID.parse(r.cid)))
}
const wrong = CID.parse('bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a')
for (const rkey of [...keys.slice(0, 40), 'absent', 'a', 'zzz', 'k', 'k1x']) {
  const car = await proof(rkey)
  const claim = { collection, rkey, cid: created.get(rkey) ?? null }
  const { verified, unverified } = await verifyProofs(car, [claim], did, key)
  assert.deepEqual([verified.length, unverified.length], [1, 0], `the proof of ${rkey}`)
  // A false claim is not verified.
  const falseClaim = { ...claim, cid: claim.cid ? null : wrong }
  assert.equal((await verifyProofs(car, [falseClaim], did, key)).verified.length, 0, `a false claim about ${rkey}`)
}
const stranger = (await Secp256k1Keypair.create()).did()
await assert.rejects(verifyProofs(await proof('absent'), [], did, stranger))

// Diffs since the previous revision, with all kinds of writes.
const load = async (car) => {
  const { root, blocks } = await readCarWithRoot(car)
  return Repo.load(new MemoryBlockstore(blocks), root)
}
const full = async () => (await sync.getRepo({ did })).data
let writes = 0
for (const changes of [
  [write('create', 'new', { n: 1 })],
  [write('update', keys[0], { n: 'changed' }), write('delete', keys[1]), write('create', 'newer', { n: 2 })],
  keys.slice(2, 150).map((rkey) => write('delete', rkey)),
  [write('delete', 'new'), write('create', 'new', { n: 1 })],
]) {
  const before = await load(await full())
  await apply(...changes)
  const since = (await sync.getRepo({ did, since: before.commit.rev })).data
  const diff = await verifyDiffCar(before, since, did, key)
  writes += diff.writes.length
  const { cid } = (await sync.getLatestCommit({ did })).data
  assert.equal(diff.commit.cid.toString(), cid)
}
assert.equal(writes, 1 + 3 + 148 + 0)
await apply(...keys.slice(150).map((rkey) => write('delete', rkey)), ...[keys[0], 'new', 'newer'].map((rkey) => write('delete', rkey)))
console.log('verified proofs of 40 records and 5 absent ones, and 4 diffs')
