// Has the reference's validators judge the texts that atproto/lexicon is tested
// with: the published vectors, and cases of ours, which win where both have a
// text. Then writes to FILE what they say of each of them changed at random, a
// JSON object a line, for that package's TestFormatsChanged.
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
  console.error(`${format} ${JSON.stringify(text.slice(0, 100))}: the reference does not say ${reference}`)
  process.exitCode = 1
}

// Where ours differs from the reference, for reasons that TestFormatVectors tells.
// And its base58 takes some characters beyond ASCII for others.
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
console.log(`the reference agrees on ${cases.size} texts, and has judged ${lines.length} more`)
