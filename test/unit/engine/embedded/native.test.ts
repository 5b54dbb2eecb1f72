import { LlamaContextSequence, type LlamaModel } from 'node-llama-cpp'
import { expect, test } from 'vitest'
import manifest from '../../../../package.json' with { type: 'json' }
import { assertLibrary, LIBRARY_VERSION, tokenBias } from '../../../../src/engine/embedded/native.ts'

test('the library is the one whose private parts are used, here and where it is installed from', async () => {
  expect(manifest.dependencies['node-llama-cpp']).toBe(LIBRARY_VERSION)
  await assertLibrary()
  await expect(assertLibrary(Promise.resolve('3.23.0'))).rejects.toThrow(
    `Expected node-llama-cpp ${LIBRARY_VERSION}, found 3.23.0.`,
  )
})

test('it still has the parts that stand in its classes; those of a model are looked at when one opens', () => {
  const { _decodeTokens: decode } = LlamaContextSequence.prototype as unknown as { _decodeTokens?: (...args: never) => unknown }
  // The last two of seven arguments are those that native.ts puts others in place of.
  expect(decode?.length).toBe(7)
  const { _biases } = tokenBias({ tokens: {} } as LlamaModel, new Map([[5, -1]])) as unknown as {
    _biases?: ReadonlyMap<number, number>
  }
  expect(_biases).toEqual(new Map([[5, -1]]))
})
