// @ts-check
// uPlot in the page's colours. A canvas says nothing to a screen reader: `label` is read instead, so say in it what is to be seen.
import { html, useEffect, useRef } from '../vendor/preact.js'
import UPlot from '../vendor/uplot.js'

/** The colour of a custom property now. @param {string} name such as `--c1` */
export function colour(name) {
  const probe = document.createElement('span')
  probe.style.color = `var(${name})`
  document.body.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

/**
 * @param {{label: string, height?: number, data: import('uplot').AlignedData, options: () => Partial<import('uplot').Options>}} props
 *   `options` is read again when the theme changes, so take colours from `colour()` inside it; axes are coloured here
 */
export function Plot({ label, height = 240, data, options }) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null))
  const plot = useRef(/** @type {import('uplot') | null} */ (null))
  const latest = useRef(data)
  latest.current = data
  useEffect(() => {
    const home = /** @type {HTMLElement} */ (ref.current)
    const draw = () => {
      plot.current?.destroy()
      const { axes = [{}, {}], ...own } = options()
      const drawn = axes.map((axis) => ({
        stroke: colour('--muted'),
        grid: { stroke: colour('--line'), width: 1 },
        ticks: { stroke: colour('--line'), width: 1 },
        font: '12px system-ui, sans-serif',
        ...axis,
      }))
      const options_ = /** @type {import('uplot').Options} */ ({
        width: home.clientWidth || 300,
        height,
        series: [],
        ...own,
        axes: drawn,
      })
      plot.current = new UPlot(options_, latest.current, home)
    }
    draw()
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: home.clientWidth || 300, height }))
    sized.observe(home)
    const themed = new MutationObserver(draw)
    themed.observe(document.documentElement, { attributeFilter: ['data-theme'] })
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', draw)
    return () => {
      sized.disconnect()
      themed.disconnect()
      dark.removeEventListener('change', draw)
      plot.current?.destroy()
    }
  }, [])
  useEffect(() => plot.current?.setData(data), [data])
  return html`<figure class="plot" role="img" aria-label=${label} ref=${ref}></figure>`
}

/**
 * Intervals as bars beside the points, a hook of uPlot's `draw`; the colour of series i is `--c{i + 1}`.
 * @param {readonly (readonly ({x: number, low: number, high: number} | null)[])[]} series in the plot's units
 */
export const intervals = (series) => (/** @type {import('uplot')} */ plot) => {
  const { ctx } = plot
  ctx.save()
  ctx.lineWidth = 1.5 * devicePixelRatio
  for (const [at, own] of series.entries()) {
    ctx.strokeStyle = colour(`--c${at + 1}`)
    for (const bar of own) {
      if (!bar) continue
      const x = plot.valToPos(bar.x, 'x', true) + (at - (series.length - 1) / 2) * 3 * devicePixelRatio
      ctx.beginPath()
      ctx.moveTo(x, plot.valToPos(bar.low, 'y', true))
      ctx.lineTo(x, plot.valToPos(bar.high, 'y', true))
      ctx.stroke()
    }
  }
  ctx.restore()
}

/** A line with a point at each value. @param {string} name @param {number} at its place among the series, from 0 */
export const line = (name, at) => ({
  label: name,
  stroke: colour(`--c${at + 1}`),
  width: 2,
  points: { show: true, size: 7, fill: colour(`--c${at + 1}`) },
})
