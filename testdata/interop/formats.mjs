// Checks the test vectors of atproto/lexicon with the reference validators: the
// published vectors and our own, which take precedence. Then writes the reference's
// results for random changes of each vector to FILE, one JSON object a line, for
// TestFormatsRandom of that package.
// usage: node formats.mjs LEXICON/TESTDATA FILE
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isStringFormat } from '@atproto/lex-schema'

const [testdata, file] = process.argv.slice(2)
const cases = new Map()
const add = (c) => cases.set(`${c.format} ${c.text}`, c)
const renamed = { atidentifier: 'at-identifier', aturi: 'at-uri', recordkey: 'record-key' }
for (const name of readdirSync(join(testdata, 'syntax'))) {
  const [, kind, verdict] = name.match(/^([a-z]+)_[a-z]+_(valid|invalid)\.txt$/)
  for (const text of readFileSync(join(testdata, 'syntax', name), 'utf8').split('\n')) {
    if (text !== '' && !text.startsWith('#')) add({ format: renamed[kind] ?? kind, text, valid: verdict === 'valid' })
  }
}
JSON.parse(readFileSync(join(testdata, 'formats.json'), 'utf8')).forEach(add)

for (const { format, text, valid, reference = valid } of cases.values()) {
  if (isStringFormat(text, format) === reference) continue
  console.error(`${format} ${JSON.stringify(text.slice(0, 100))}: the reference's result is not ${reference}`)
  process.exitCode = 1
}

// Our validators differ from the reference here, see TestFormatVectors. The
// reference's base58 also accepts some non-ASCII characters.
const differs = {
  cid: (text) => /[^\0-\x7f]/.test(text),
  uri: (text) => /^\w*[+.-]/.test(text),
  datetime: (text) => text.slice(8, 10) > '28',
}
let state = 1
const random = (n) => (state = (state * 48271) % 0x7fffffff) % n
const characters = [...'\0\n %+,-./019:ATZ_ajkz~é#?x\u3000\u{1f44d}']
const changed = (text) => {
  const list = [...text]
  for (let i = 0; i <= random(2); i++) {
    const from = random(list.length + 1)
    list.splice(from, random(2), ...(random(3) > 0 ? [characters[random(characters.length)]] : []))
  }
  return list.join('')
}
const lines = []
for (const { format, text } of cases.values()) {
  for (let i = 0; i < 100 && text.length < 1000; i++) {
    const other = changed(text)
    if (!differs[format]?.(other)) lines.push(JSON.stringify({ format, text: other, valid: isStringFormat(other, format) }))
  }
}
writeFileSync(file, lines.join('\n') + '\n')
console.log(`the reference agrees on ${cases.size} vectors; ${lines.length} random ones written`)
