// Compares the facets of announcements with those that the official client finds in their
// texts: links whose text is their address, hashtags and mentions, each with its bytes. It
// cannot find a link whose text is a name. In the line with `docker pull`, where it may take
// a reference for a link, there are no links of ours.
// usage: node facets.mjs http://HOST DID
// Prints the number of posts and of facets by kind, as JSON.
import assert from 'node:assert/strict'
import { pathToFileURL } from 'node:url'
import { AtpAgent, RichText } from '@atproto/api'

const kind = (feature) => feature.$type.split('#')[1]
const describe = ({ index, features }) =>
  features.map((f) => `${index.byteStart}-${index.byteEnd} ${kind(f)} ${f.uri ?? f.tag ?? f.did}`)

const compareFacets = async (agent, { text, facets = [] }) => {
  const bytes = Buffer.from(text)
  const shown = ({ index }) => bytes.subarray(index.byteStart, index.byteEnd).toString()
  const findable = facets.filter((f) => kind(f.features[0]) !== 'link' || shown(f) === f.features[0].uri)
  const found = new RichText({ text })
  await found.detectFacets(agent)
  const pull = bytes.indexOf('docker pull ')
  const pullEnd = pull < 0 ? pull : bytes.indexOf('\n', pull) < 0 ? bytes.length : bytes.indexOf('\n', pull)
  const theirs = (found.facets ?? []).filter(({ index }) => index.byteEnd <= pull || index.byteStart >= pullEnd)
  assert.deepEqual(theirs.flatMap(describe).sort(), findable.flatMap(describe).sort(), text)
  const segments = [...new RichText({ text, facets }).segments()].filter((s) => s.facet)
  assert.deepEqual(segments.map((s) => s.text), facets.map(shown))
  return findable.flatMap((f) => f.features.map(kind))
}

// Compares the facets of all announcements of an account.
export const compareAnnouncements = async (agent, did) => {
  const counts = { posts: 0, link: 0, tag: 0, mention: 0 }
  const { records } = (await agent.com.atproto.repo.listRecords({ repo: did, collection: 'app.bsky.feed.post', limit: 100 })).data
  for (const { value } of records.filter((r) => r.value.tidingsImage)) {
    counts.posts++
    for (const found of await compareFacets(agent, value)) counts[found]++
  }
  return counts
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [service, did] = process.argv.slice(2)
  console.log(JSON.stringify(await compareAnnouncements(new AtpAgent({ service }), did)))
}
