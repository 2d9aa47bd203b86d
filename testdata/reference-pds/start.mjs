// Starts a local PLC directory and the reference Bluesky PDS on loopback, creates
// an account and prints it as one JSON line. PDS_* variables that are already set
// take precedence; with PDS_DID_PLC_URL no PLC directory is started. A dataDir that has
// an account is served again. It exits on SIGINT and SIGTERM and, if its standard input
// is a pipe, when that is closed.
// usage: node start.mjs [plcPort] [pdsPort] [dataDir] [handle]
import { existsSync, fstatSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const [plcPort = '2582', pdsPort = '2583', dir, handle = 'alice.test'] = process.argv.slice(2)
const data = dir ? resolve(dir) : mkdtempSync(join(tmpdir(), 'reference-pds-'))
mkdirSync(join(data, 'blobs'), { recursive: true })
const ownPlc = !process.env.PDS_DID_PLC_URL
const defaults = {
  LOG_ENABLED: 'false',
  PDS_PORT: pdsPort,
  PDS_HOSTNAME: 'localhost', // public URL is http://localhost:PORT and handles end in .test
  PDS_DATA_DIRECTORY: data,
  PDS_BLOBSTORE_DISK_LOCATION: join(data, 'blobs'),
  PDS_DID_PLC_URL: `http://localhost:${plcPort}`,
  PDS_INVITE_REQUIRED: 'false',
  PDS_DEV_MODE: 'true', // without it a http:// public URL is refused at start
  PDS_DISABLE_SSRF_PROTECTION: 'true',
  PDS_JWT_SECRET: randomBytes(16).toString('hex'),
  PDS_ADMIN_PASSWORD: 'admin-pass',
  PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX: randomBytes(32).toString('hex'),
}
for (const [k, v] of Object.entries(defaults)) process.env[k] ??= v

const load = async (name, want) => { const m = await import(name); return m[want] ? m : m.default }
let plc
if (ownPlc) {
  const { PlcServer, Database } = await load('@did-plc/server', 'PlcServer')
  plc = PlcServer.create({ db: Database.mock(), port: Number(plcPort) })
  await plc.start()
}

const { PDS, envToCfg, envToSecrets, readEnv } = await load('@atproto/pds', 'PDS')
const env = readEnv()
const pds = await PDS.create(envToCfg(env), envToSecrets(env))
await pds.start()

const url = `http://localhost:${pdsPort}`
const createAccount = async () => {
  const password = randomBytes(8).toString('hex')
  const res = await fetch(`${url}/xrpc/com.atproto.server.createAccount`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ handle, email: `${handle.split('.')[0]}@example.com`, password }),
  })
  if (!res.ok) throw new Error(`createAccount: ${res.status} ${await res.text()}`)
  const { did } = await res.json()
  return { handle, did, password }
}
const file = join(data, 'account.json')
const account = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : await createAccount()
const line = JSON.stringify({ ...account, pds: url, plc: process.env.PDS_DID_PLC_URL, data, pid: process.pid, node: process.version })
writeFileSync(file, line)
console.log(line)
const stop = async () => { await pds.destroy(); await plc?.destroy(); process.exit(0) }
for (const s of ['SIGINT', 'SIGTERM']) process.on(s, stop)
if (fstatSync(0).isFIFO()) process.stdin.on('end', stop).resume()
