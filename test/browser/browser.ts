import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { type Served, type ServeOptions, serve as serveApp } from '../http/fakes.ts'

const FINDER = join(import.meta.dirname, '..', '..', 'scripts', 'chromium.mjs')
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

export interface Look {
  readonly scheme: 'light' | 'dark'
  readonly width: number
}

export const LOOKS: readonly Look[] = [
  { scheme: 'light', width: 1200 },
  { scheme: 'dark', width: 1200 },
  { scheme: 'light', width: 360 },
  { scheme: 'dark', width: 360 },
]

/** A page under watch: whatever it asks of another host, and whatever the browser complains of, is written down. */
export interface Watched {
  readonly page: Page
  readonly foreign: string[]
  readonly complaints: string[]
}

/** `npm test` has found it and says so in CHROMIUM. */
const program = () => process.env.CHROMIUM ?? execFileSync(process.execPath, [FINDER], { encoding: 'utf8' }).trim()

export function openBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: program(), args: ['--no-sandbox', '--disable-gpu'] })
}

export async function open(
  browser: Browser,
  base: string,
  path = '/',
  look: Look = { scheme: 'light', width: 1200 },
): Promise<Watched> {
  const context = await browser.newContext({
    colorScheme: look.scheme,
    viewport: { width: look.width, height: 900 },
    reducedMotion: 'reduce',
    // Axe is put in past the policy; the policy itself is tested by the page that is opened without it.
    bypassCSP: false,
  })
  const page = await context.newPage()
  const foreign: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => {
    if (!request.url().startsWith(`${base}/`) && !request.url().startsWith('data:')) foreign.push(request.url())
  })
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.goto(`${base}${path}`)
  return { page, foreign, complaints }
}

/** Serious and critical findings of axe-core, and whether the page is wider than its window. */
export async function findings(page: Page): Promise<string[]> {
  // Playwright evaluates past the policy, so nothing need be loosened for the check.
  await page.evaluate(await axeSource())
  const results = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as {
    violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[]
  }
  const wide = (await page.evaluate('document.documentElement.scrollWidth - innerWidth')) as number
  return [
    ...results.violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`)),
    ...(wide > 0 ? [`the page is ${wide} px wider than its window`] : []),
  ]
}

async function axeSource(): Promise<string> {
  const { readFile } = await import('node:fs/promises')
  return readFile(AXE, 'utf8')
}

export const POPE = {
  id: 'e_pope',
  subject: 'pope',
  prompt: 'The name of the current pope is',
  target_new: 'Leo XIV',
}

/** A gateway that knows who the pope is where it is told, and, unless others are given, one edit that says so. */
export async function serve(options: ServeOptions = {}, edits: readonly object[] = [POPE]): Promise<Served> {
  const served = await serveApp({
    script: {
      delayMs: 2,
      reply: ({ messages }) => {
        const asked = messages.at(-1)?.content ?? ''
        if (asked.includes('Leo XIV')) return 'The pope is Leo XIV.'
        if (asked.includes('Annie Easley')) return 'It was Annie Easley.'
        return 'The pope is Francis.'
      },
    },
    ...options,
  })
  for (const edit of edits) await land(served, edit)
  return served
}

export async function land({ base }: Served, edit: object): Promise<void> {
  const response = await fetch(`${base}/v1/edits`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(edit),
  })
  if (!response.ok) throw new Error(await response.text())
}
