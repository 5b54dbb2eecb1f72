// @ts-check
// Inputs with their labels; each gives its value to `onValue`.

import { html } from '../vendor/preact.js'
import { Field } from './ui.js'

/** @typedef {{id: string, label: string, hint?: any, fault?: string | undefined, inline?: boolean}} Labelled */

/** @param {Labelled & {value: string, onValue: (value: string) => void, type?: string, list?: string, rows?: number, [more: string]: unknown}} props */
export function Input({ id, label, hint, fault, inline, value, onValue, type = 'text', rows, ...more }) {
  const given = (/** @type {any} */ event) => onValue(event.target.value)
  return html`<${Field} id=${id} label=${label} hint=${hint} fault=${fault} inline=${inline}>${(
    /** @type {object} */ attributes,
  ) =>
    rows === undefined
      ? html`<input class="input" type=${type} autocomplete="off" ...${attributes} ...${more} value=${value} onInput=${given} />`
      : html`<textarea class="input" rows=${rows} ...${attributes} ...${more} value=${value} onInput=${given}></textarea>`}<//>`
}

/** @param {Labelled & {value: string, onValue: (value: string) => void, choices: readonly (readonly [value: string, text: string])[]}} props */
export function Select({ id, label, hint, fault, inline, value, onValue, choices }) {
  return html`<${Field} id=${id} label=${label} hint=${hint} fault=${fault} inline=${inline}>${(
    /** @type {object} */ attributes,
  ) =>
    html`<select class="input" ...${attributes} value=${value} onChange=${(/** @type {any} */ event) => onValue(event.target.value)}>
      ${choices.map(([one, text]) => html`<option key=${one} value=${one} selected=${one === value}>${text}</option>`)}</select>`}<//>`
}

/** @param {{id: string, label: any, hint?: any, checked: boolean, onValue: (checked: boolean) => void}} props */
export function Check({ id, label, hint, checked, onValue }) {
  return html`<div class="check"><input type="checkbox" id=${id} checked=${checked} aria-describedby=${hint ? `${id}-hint` : undefined}
    onChange=${(/** @type {any} */ event) => onValue(event.target.checked)} />
    <div><label for=${id}>${label}</label>${hint && html`<span class="hint" id="${id}-hint">${hint}</span>`}</div></div>`
}

/** "a, b" as a list; undefined where it is empty. @param {string | undefined} text */
export function listOf(text) {
  const parts = (text ?? '')
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
  return parts.length === 0 ? undefined : parts
}

/** A number as typed; undefined where nothing is, and as it is where it is none, for the gateway to refuse by name. @param {string | undefined} text */
export function numberOf(text) {
  const typed = (text ?? '').trim()
  if (typed === '') return undefined
  return Number.isFinite(Number(typed)) ? Number(typed) : /** @type {any} */ (typed)
}

/** An object without what is undefined. @param {Record<string, unknown>} fields */
export function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}
