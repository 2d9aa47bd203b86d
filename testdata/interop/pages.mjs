// Opens the pages of a running registry in Chromium: light and dark, on a wide screen and a
// phone. Each page must load without an error in the console and without a violation of its
// content security policy, fit into the width, show something, and pass axe, which checks
// accessibility, such as contrast, headings and labels.
// With SCREENSHOTS, a folder, it keeps the pictures.
// usage: node pages.mjs http://HOST CHROMIUM PATH...
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const [base, executablePath, ...paths] = process.argv.slice(2)
const folder = process.env.SCREENSHOTS
if (folder) mkdirSync(folder, { recursive: true })
const screens = { wide: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } }

// Playwright starts Chromium without its sandbox, which root cannot use. The other flags
// keep it from connecting to other hosts.
const browser = await chromium.launch({
  executablePath,
  args: ['--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})

// colors counts the colors of a picture, in a page that may decode it.
const blank = await (await browser.newContext()).newPage()
const colors = (png) => blank.evaluate(async (encoded) => {
  const picture = await createImageBitmap(await (await fetch(`data:image/png;base64,${encoded}`)).blob())
  const drawn = new OffscreenCanvas(picture.width, picture.height).getContext('2d')
  drawn.drawImage(picture, 0, 0)
  return new Set(new Uint32Array(drawn.getImageData(0, 0, picture.width, picture.height).data.buffer)).size
}, png.toString('base64'))

// check opens a page and returns what is wrong with it.
const check = async (context, path, name, dark) => {
  const page = await context.newPage()
  const wrong = []
  page.on('console', (m) => { if (['error', 'warning'].includes(m.type())) wrong.push(`console: ${m.text()}`) })
  page.on('pageerror', (err) => wrong.push(`error: ${err}`))
  page.on('requestfailed', (r) => wrong.push(`${r.url()}: ${r.failure().errorText}`))
  page.on('request', (r) => { if (!r.url().startsWith(`${base}/`)) wrong.push(`a request to ${r.url()}`) })
  const res = await page.goto(base + path, { waitUntil: 'load' })
  if (res.status() !== 200) wrong.push(`status ${res.status()}`)
  const png = await page.screenshot({ fullPage: true })
  if (folder) writeFileSync(join(folder, `${name}.png`), png)
  const count = await colors(png)
  if (count < 16) wrong.push(`blank: it has ${count} colors`)

  const seen = await page.evaluate(() => {
    const width = document.documentElement.clientWidth
    const outside = [...document.body.querySelectorAll('*')]
      .filter((e) => !e.closest('pre') && e.getBoundingClientRect().right > width + 1)
    const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)
    return {
      violations: window.violations, scroll: document.documentElement.scrollWidth - width,
      outside: outside.map((e) => e.outerHTML.slice(0, 80)), dark: r + g + b < 3 * 128,
    }
  })
  wrong.push(...seen.violations)
  if (seen.scroll > 0) wrong.push(`scrolls horizontally by ${seen.scroll} pixels`)
  if (seen.outside.length > 0) wrong.push(`outside of the page: ${seen.outside}`)
  if (seen.dark !== dark) wrong.push(`dark: ${seen.dark}`)
  wrong.push(...await unfocusable(page))

  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => window.axe.run())
  for (const v of violations) wrong.push(`axe: ${v.help}: ${v.nodes.map((n) => n.html).join(' ')}`)
  await page.close()
  return wrong.map((text) => `${name} (${path}): ${text}`)
}

// unfocusable returns what the keyboard reaches without a visible focus.
const unfocusable = async (page) => {
  const wrong = []
  for (let i = 0; i < 8; i++) {
    await page.keyboard.press('Tab')
    const missing = await page.evaluate(() => {
      const e = document.activeElement
      const style = getComputedStyle(e)
      return e !== document.body && (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2) ? e.outerHTML : ''
    })
    if (missing) wrong.push(`no focus on ${missing}`)
  }
  return wrong
}

try {
  const jobs = Object.entries(screens).flatMap(([screen, viewport]) => ['light', 'dark'].map(async (colorScheme) => {
    const context = await browser.newContext({ viewport, colorScheme })
    await context.addInitScript(() => {
      window.violations = []
      document.addEventListener('securitypolicyviolation', (e) => window.violations.push(`CSP: ${e.violatedDirective} ${e.blockedURI}`))
    })
    const wrong = []
    for (const [i, path] of paths.entries()) wrong.push(...await check(context, path, `${i}-${screen}-${colorScheme}`, colorScheme === 'dark'))
    return wrong
  }))
  const wrong = (await Promise.all(jobs)).flat()
  assert.deepEqual(wrong, [], wrong.join('\n'))
  console.log(`pages: ${paths.length} pages, light and dark, wide and on a phone: nothing wrong`)
} finally {
  await browser.close()
}
