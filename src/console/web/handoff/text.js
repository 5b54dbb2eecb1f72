// @ts-check
// Hand-offs in words and colours.
/** @typedef {'' | 'accent' | 'good' | 'warn' | 'bad'} Tone */
/** @type {Record<string, Tone>} */
export const TONES = { done: 'good', running: 'accent', failed: 'bad', stopped: 'warn', interrupted: 'warn' }

/** @param {number | null} seconds */
export function minutes(seconds) {
  if (seconds === null) return '–'
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`
}

/** A share as per cent, anything larger as it is. @param {number | null} value */
export const figure = (value) => (value === null ? '–' : value > 1 ? value.toFixed(1) : `${(value * 100).toFixed(1)} %`)
