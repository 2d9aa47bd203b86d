// Waits until no event of a running server is pending, exports the account's
// repo, and runs verify.mjs on it.
// TIDINGS_TOKEN is the token of the API.
// usage: node check.mjs http://HOST DID COLLECTION=COUNT...
import { execFileSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const [base, did, ...wanted] = process.argv.slice(2)
const get = async (path, headers = {}) => {
  const res = await fetch(base + path, { headers })
  if (!res.ok) throw new Error(`${path}: ${res.status} ${await res.text()}`)
  return res
}

for (let i = 0; ; i++) {
  const { sinks } = await (await get('/tidings/api/v1/health', { authorization: `Bearer ${process.env.TIDINGS_TOKEN}` })).json()
  if (sinks.length > 0 && sinks.every((s) => s.depth === 0)) break
  if (i === 300) throw new Error(`events stay pending: ${JSON.stringify(sinks)}`)
  await setTimeout(100)
}
const doc = await (await get('/.well-known/did.json')).json()
if (doc.id !== did) throw new Error(`did.json has id ${doc.id}, want ${did}`)
const key = `did:key:${doc.verificationMethod[0].publicKeyMultibase}`
const car = join(mkdtempSync(join(tmpdir(), 'car-')), 'repo.car')
const res = await get(`/xrpc/com.atproto.sync.getRepo?did=${encodeURIComponent(did)}`)
writeFileSync(car, Buffer.from(await res.arrayBuffer()))
execFileSync(process.execPath, ['verify.mjs', car, did, key, ...wanted], { stdio: 'inherit' })
