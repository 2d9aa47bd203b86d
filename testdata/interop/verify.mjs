// Verifies an exported repo with the official library: the signature, the whole
// tree, and the hash of every record.
// usage: node verify.mjs FILE.car DID DIDKEY WANTED...   (WANTED: collection=count)
import { readFileSync } from 'node:fs'
import { verifyRepoCar } from '@atproto/repo'

const [file, did, key, ...wanted] = process.argv.slice(2)
const repo = await verifyRepoCar(readFileSync(file), did, key)
const counts = {}
for (const { collection } of repo.creates) counts[collection] = (counts[collection] ?? 0) + 1
console.log(`verified ${repo.commit.cid}: ${JSON.stringify(counts)}`)
for (const want of wanted) {
  const [collection, count] = want.split('=')
  if ((counts[collection] ?? 0) !== Number(count)) {
    console.error(`${collection}: ${counts[collection] ?? 0} records, want ${count}`)
    process.exitCode = 1
  }
}

// The verifier must reject another key.
const { Secp256k1Keypair } = await import('@atproto/crypto')
const stranger = (await Secp256k1Keypair.create()).did()
try {
  await verifyRepoCar(readFileSync(file), did, stranger)
  console.error('another key was accepted')
  process.exitCode = 1
} catch (err) {
  console.log(`another key is rejected: ${err.message}`)
}
