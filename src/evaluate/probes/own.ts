import { inScopeProbe, type ProbeReader, reliability } from './reader.ts'

/** Our own shape has no probes; its paraphrases are known to the memory, so that they show recall and no generalization. */
export const palimpsest: ProbeReader = (_fields, edits) =>
  edits.flatMap((edit) => [
    reliability(edit),
    ...edit.paraphrases.map((text) => inScopeProbe('reliability', 'stored_paraphrase', text, edit)),
  ])
