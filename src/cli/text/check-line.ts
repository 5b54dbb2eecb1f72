/** `missing`: the gateway cannot do its work without it. `note`: worth knowing, nothing to mend now. */
export interface Check {
  readonly state: 'ok' | 'note' | 'missing'
  readonly what: string
  readonly found: string
  /** What to do about it. */
  readonly mend?: string
}
