import { LRUCache } from 'lru-cache'
import type { Earlier } from '../../wire/openai/responses/request.ts'

type Items = NonNullable<ReturnType<Earlier['conversation']>>

interface Kept {
  /** The Response object as it was sent. */
  readonly response: object
  /** Of this request and its answer; earlier ones are found through `previous`. */
  readonly items: Items
  readonly previous: string | null
}

/**
 * The latest responses of each tenant, for `previous_response_id`, `item_reference` and `GET /v1/responses/ID`: in memory, within a number of
 * bytes, the longest unused dropped first. A convenience and no archive: a restart forgets them all.
 */
export class ResponseStore implements Earlier {
  readonly #kept: LRUCache<string, Kept>
  readonly #items: LRUCache<string, Items[number]>

  constructor(limitBytes: number) {
    // Items are found by id too, in a quarter of the memory.
    this.#kept = bounded(limitBytes * 0.75)
    this.#items = bounded(limitBytes * 0.25)
  }

  keep(tenant: string, id: string, kept: Kept): void {
    this.#kept.set(key(tenant, id), kept)
    for (const item of kept.items) if ('id' in item && typeof item.id === 'string') this.#items.set(key(tenant, item.id), item)
  }

  response(tenant: string, id: string): object | undefined {
    return this.#kept.get(key(tenant, id))?.response
  }

  drop(tenant: string, id: string): boolean {
    return this.#kept.delete(key(tenant, id))
  }

  /** Undefined too where an earlier part of the conversation has been dropped: half of it would be answered as if it were the whole. */
  conversation(tenant: string, id: string): Items | undefined {
    const parts: Items[] = []
    for (let at: string | null = id; at !== null; ) {
      const kept: Kept | undefined = this.#kept.get(key(tenant, at))
      if (kept === undefined) return undefined
      parts.push(kept.items)
      at = kept.previous
    }
    return parts.reverse().flat()
  }

  item(tenant: string, id: string): Items[number] | undefined {
    return this.#items.get(key(tenant, id))
  }
}

function bounded<Value extends object>(limitBytes: number): LRUCache<string, Value> {
  return new LRUCache({
    maxSize: Math.max(1, Math.floor(limitBytes)),
    // Text is two bytes a character in memory, at most.
    sizeCalculation: (value, id) => 2 * (JSON.stringify(value).length + id.length),
  })
}

function key(tenant: string, id: string): string {
  return `${tenant}\n${id}`
}
