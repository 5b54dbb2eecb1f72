import { request } from 'node:http'
import { gzipSync } from 'node:zlib'

/** One wrong request, and the error it must get. */
export interface Malformed {
  readonly name: string
  readonly method: string
  readonly path: string
  readonly headers: readonly (readonly [string, string])[]
  readonly body: string | Buffer
  readonly status: number
  readonly code: string
  readonly param: string | null
}

export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/** Sends exactly these headers and bytes; fetch would tidy them. */
export function send(
  base: string,
  { method, path, headers, body }: Pick<Malformed, 'method' | 'path' | 'headers' | 'body'>,
): Promise<Reply> {
  const { hostname, port, host } = new URL(base)
  const named = new Set(headers.map(([name]) => name.toLowerCase()))
  const raw = [
    ...(named.has('host') ? [] : ['Host', host]),
    'Content-Length',
    String(Buffer.byteLength(body)),
    'Connection',
    'close',
    ...headers.flat(),
  ]
  return new Promise((resolve, reject) => {
    const sent = request(
      { hostname, port, method, path, headers: raw as unknown as Record<string, string>, agent: false },
      (res) => {
        const parts: Buffer[] = []
        res.on('data', (part: Buffer) => parts.push(part))
        res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, text: Buffer.concat(parts).toString() }))
        res.on('error', reject)
      },
    )
    sent.on('error', reject)
    sent.end(body)
  })
}

const JSON_TYPE = [['Content-Type', 'application/json']] as const
const CHAT = '/v1/chat/completions'

type Expected = readonly [code: string, param?: string | null, status?: number]

/** About 100 wrong requests of different kinds. `model` is the name that the server serves. */
export function malformed(model: string): Malformed[] {
  const user = [{ role: 'user', content: 'Hello' }]
  const post = (
    name: string,
    path: string,
    body: string | Buffer,
    [code, param = null, status = 400]: Expected,
    headers: Malformed['headers'] = JSON_TYPE,
  ): Malformed => ({
    name,
    method: 'POST',
    path,
    headers,
    body,
    status,
    code,
    param,
  })
  const get = (
    path: string,
    [code, param = null, status = 400]: Expected,
    method = 'GET',
    headers: Malformed['headers'] = [],
  ): Malformed => ({
    name: `${method} ${path.slice(0, 60)}`,
    method,
    path,
    headers,
    body: '',
    status,
    code,
    param,
  })
  /** A good chat request with some fields replaced; undefined takes a field away. */
  const chat = (name: string, fields: object, expected: Expected, headers?: Malformed['headers']) =>
    post(name, CHAT, JSON.stringify({ model, messages: user, ...fields }), expected, headers)
  const raw = (name: string, body: string | Buffer, expected: Expected, headers?: Malformed['headers']) =>
    post(name, CHAT, body, expected, headers)
  const message = (name: string, fields: object, expected: Expected) =>
    chat(name, { messages: [{ role: 'user', content: 'Hello', ...fields }] }, expected)
  const ours = (name: string, palimpsest: unknown, expected: Expected) => chat(name, { palimpsest }, expected)
  const good = JSON.stringify({ model, messages: user })
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
  const edit = (fields: object) =>
    JSON.stringify({ subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada', ...fields })

  return [
    // The body as bytes
    raw('empty body', '', ['invalid_json']),
    raw('blank body', ' \n ', ['invalid_json']),
    raw('not JSON', 'hello', ['invalid_json']),
    raw('truncated JSON', good.slice(0, -3), ['invalid_json']),
    raw('trailing comma', `${good.slice(0, -1)},}`, ['invalid_json']),
    raw('two values', `${good}${good}`, ['invalid_json']),
    raw('NaN', good.replace(/}$/, ',"seed":NaN}'), ['invalid_json']),
    raw('bad UTF-8', Buffer.concat([Buffer.from(good.slice(0, -10)), Buffer.from([0xff, 0xfe]), Buffer.from(good.slice(-10))]), [
      'invalid_json',
    ]),
    raw(
      'UTF-16',
      Buffer.from(good, 'utf16le'),
      ['unsupported_media_type', null, 415],
      [['Content-Type', 'application/json; charset=utf-16']],
    ),
    raw('deep nesting', `{"model":"${model}","messages":${deep}}`, ['invalid_json']),
    raw('deep nesting, never closed', '{"a":'.repeat(200_000), ['invalid_json']),
    raw(
      '200,000 unknown fields',
      JSON.stringify({ model, ...Object.fromEntries(Array.from({ length: 200_000 }, (_, i) => [`k${i}`, 1])) }),
      ['invalid_json'],
    ),
    raw('larger than 4 MiB', JSON.stringify({ model, messages: [{ role: 'user', content: 'x'.repeat(4 * 1024 * 1024) }] }), [
      'request_too_large',
      null,
      413,
    ]),
    raw(
      'a small body that inflates to more than 4 MiB',
      gzipSync(Buffer.alloc(5 * 1024 * 1024, 0x20)),
      ['request_too_large', null, 413],
      [...JSON_TYPE, ['Content-Encoding', 'gzip']],
    ),
    raw('garbage called gzip', Buffer.from('not gzip at all'), ['invalid_value'], [...JSON_TYPE, ['Content-Encoding', 'gzip']]),
    raw('truncated gzip', gzipSync(good).subarray(0, 20), ['invalid_value'], [...JSON_TYPE, ['Content-Encoding', 'gzip']]),
    raw('unknown content encoding', good, ['unsupported_media_type', null, 415], [...JSON_TYPE, ['Content-Encoding', 'zzz']]),
    raw(
      'form content type',
      good,
      ['unsupported_media_type', null, 415],
      [['Content-Type', 'application/x-www-form-urlencoded']],
    ),
    raw('no content type', good, ['unsupported_media_type', null, 415], []),
    raw('nonsense content type', good, ['unsupported_media_type', null, 415], [['Content-Type', ';;;=']]),
    raw('two content types', good, ['invalid_value'], [...JSON_TYPE, ['Content-Type', 'text/plain']]),
    raw('an array', '[]', ['invalid_value']),
    raw('null', 'null', ['invalid_value']),
    raw('a string', '"hello"', ['invalid_value']),
    raw('a field twice', good.replace(/}$/, ',"model":"other"}'), ['invalid_json', 'model']),
    raw('a field twice, spelt in two ways', good.replace(/}$/, ',"mode\\u006c":"other"}'), ['invalid_json', 'model']),
    raw('a field twice deep down', good.replace('"role"', '"role":"system","role"'), ['invalid_json', 'role']),
    raw('prototype key', `{"__proto__":{"model":"${model}"},"messages":[{"role":"user","content":"x"}]}`, [
      'unknown_field',
      '__proto__',
    ]),
    raw('prototype key beside the rest', good.replace(/}$/, ',"__proto__":{"stream":true}}'), ['unknown_field', '__proto__']),
    raw('an object for a constructor', good.replace(/}$/, ',"constructor":{"prototype":{"x":1}}}'), [
      'unknown_field',
      'constructor',
    ]),

    // Fields of a chat request
    chat('no model', { model: undefined }, ['missing_field', 'model']),
    chat('null model', { model: null }, ['missing_field', 'model']),
    chat('a number for model', { model: 7 }, ['invalid_value', 'model']),
    chat('unknown model', { model: 'gpt-4o' }, ['model_not_found', 'model', 404]),
    chat('unknown arm', { model: `${model}@blue` }, ['model_not_found', 'model', 404]),
    chat('a very long model', { model: 'm'.repeat(100_000) }, ['model_not_found', 'model', 404]),
    chat('no messages', { messages: undefined }, ['missing_field', 'messages']),
    chat('empty messages', { messages: [] }, ['invalid_value', 'messages']),
    chat('a string for messages', { messages: 'Hello' }, ['invalid_value', 'messages']),
    chat('a null message', { messages: [null] }, ['invalid_value', 'messages[0]']),
    chat('too many messages', { messages: Array.from({ length: 3_000 }, () => user[0]) }, ['invalid_value', 'messages']),
    message('no role', { role: undefined }, ['missing_field', 'messages[0].role']),
    message('unknown role', { role: 'robot' }, ['invalid_value', 'messages[0].role']),
    message('prototype role', { role: 'constructor' }, ['invalid_value', 'messages[0].role']),
    message('a result without its call', { role: 'tool', tool_call_id: null }, ['missing_field', 'messages[0].tool_call_id']),
    message('a result of a call that was not made', { role: 'tool', tool_call_id: 'x' }, [
      'invalid_value',
      'messages[0].tool_call_id',
    ]),
    message('a function message', { role: 'function', name: 'f' }, ['unsupported_field', 'messages[0].role']),
    message('a call by the user', { tool_calls: [{ id: 'x', type: 'function', function: { name: 'f', arguments: '{}' } }] }, [
      'invalid_value',
      'messages[0].tool_calls',
    ]),
    message('a custom call', { role: 'assistant', tool_calls: [{ id: 'x', type: 'custom', custom: {} }] }, [
      'invalid_value',
      'messages[0].tool_calls[0].type',
    ]),
    message('a call without a function', { role: 'assistant', tool_calls: [{ id: 'x', type: 'function' }] }, [
      'missing_field',
      'messages[0].tool_calls[0].function',
    ]),
    message('a result’s id on another message', { tool_call_id: 'x' }, ['invalid_value', 'messages[0].tool_call_id']),
    message('an old call', { role: 'assistant', function_call: { name: 'f', arguments: '{}' } }, [
      'unsupported_field',
      'messages[0].function_call',
    ]),
    message('no content', { content: undefined }, ['missing_field', 'messages[0].content']),
    message('null content', { content: null }, ['missing_field', 'messages[0].content']),
    message('a number for content', { content: 5 }, ['invalid_value', 'messages[0].content']),
    message('no parts', { content: [] }, ['invalid_value', 'messages[0].content']),
    message('a string for a part', { content: ['Hello'] }, ['invalid_value', 'messages[0].content[0]']),
    message(
      'an image',
      {
        content: [
          { type: 'text', text: 'x' },
          { type: 'image_url', image_url: { url: 'x' } },
        ],
      },
      ['unsupported_field', 'messages[0].content[1].type'],
    ),
    message('unknown part', { content: [{ type: 'smell', smell: 'x' }] }, ['invalid_value', 'messages[0].content[0].type']),
    message('a part without text', { content: [{ type: 'text' }] }, ['missing_field', 'messages[0].content[0].text']),
    message('half an emoji', { content: 'x\ud83d' }, ['invalid_value', 'messages[0].content[0].text']),
    message('a very long name', { name: 'A'.repeat(65) }, ['invalid_value', 'messages[0].name']),
    message('unknown field in a message', { colour: 'red' }, ['unknown_field', 'messages[0].colour']),
    chat('a hot string', { temperature: 'hot' }, ['invalid_value', 'temperature']),
    chat('too hot', { temperature: 2.1 }, ['invalid_value', 'temperature']),
    chat('too cold', { temperature: -0.1 }, ['invalid_value', 'temperature']),
    raw('infinite temperature', good.replace(/}$/, ',"temperature":1e999}'), ['invalid_value', 'temperature']),
    chat('top_p below 0', { top_p: -0.1 }, ['invalid_value', 'top_p']),
    chat('a penalty beyond 2', { frequency_penalty: 2.5 }, ['invalid_value', 'frequency_penalty']),
    chat('a string for a penalty', { presence_penalty: '1' }, ['invalid_value', 'presence_penalty']),
    chat('a bias beyond 100', { logit_bias: { 5: 101 } }, ['invalid_value', 'logit_bias.5']),
    chat('a bias on a word', { logit_bias: { the: 1 } }, ['invalid_value', 'logit_bias.the']),
    chat('an array of biases', { logit_bias: [1] }, ['invalid_value', 'logit_bias']),
    chat('top_logprobs without logprobs', { top_logprobs: 2 }, ['invalid_value', 'top_logprobs']),
    chat('too many top_logprobs', { logprobs: true, top_logprobs: 21 }, ['invalid_value', 'top_logprobs']),
    chat('a number for logprobs', { logprobs: 1 }, ['invalid_value', 'logprobs']),
    chat('a top_k of -2', { top_k: -2 }, ['invalid_value', 'top_k']),
    chat('a string for response_format', { response_format: 'json' }, ['invalid_value', 'response_format']),
    chat('an unknown format', { response_format: { type: 'xml' } }, ['invalid_value', 'response_format.type']),
    chat('a format without its schema', { response_format: { type: 'json_schema' } }, [
      'missing_field',
      'response_format.json_schema',
    ]),
    chat('a schema without a name', { response_format: { type: 'json_schema', json_schema: { schema: {} } } }, [
      'missing_field',
      'response_format.json_schema.name',
    ]),
    chat('an array for a schema', { response_format: { type: 'json_schema', json_schema: { name: 'x', schema: [] } } }, [
      'invalid_value',
      'response_format.json_schema.schema',
    ]),
    chat('a tool that is nothing', { tools: [{}] }, ['missing_field', 'tools[0].type']),
    chat('a custom tool', { tools: [{ type: 'custom', custom: { name: 'f' } }] }, ['unsupported_field', 'tools[0].type']),
    chat('a tool without a name', { tools: [{ type: 'function', function: {} }] }, ['missing_field', 'tools[0].function.name']),
    chat('a tool with a blank in its name', { tools: [tool('get weather')] }, ['invalid_value', 'tools[0].function.name']),
    chat('two tools of one name', { tools: [tool('f'), tool('f')] }, ['invalid_value', 'tools[1].function.name']),
    chat('an array for parameters', { tools: [tool('f', { parameters: [] })] }, [
      'invalid_value',
      'tools[0].function.parameters',
    ]),
    chat('too many tools', { tools: Array.from({ length: 129 }, (_, i) => tool(`f${i}`)) }, ['invalid_value', 'tools']),
    chat('a call required without tools', { tool_choice: 'required' }, ['invalid_value', 'tool_choice']),
    chat('an unknown choice', { tools: [tool('f')], tool_choice: 'any' }, ['invalid_value', 'tool_choice']),
    chat(
      'a choice of a tool that is not there',
      { tools: [tool('f')], tool_choice: { type: 'function', function: { name: 'g' } } },
      ['invalid_value', 'tool_choice'],
    ),
    chat('a choice of a custom tool', { tools: [tool('f')], tool_choice: { type: 'custom', custom: { name: 'f' } } }, [
      'unsupported_field',
      'tool_choice.type',
    ]),
    chat('a string for parallel_tool_calls', { parallel_tool_calls: 'no' }, ['invalid_value', 'parallel_tool_calls']),
    chat('a prediction of another kind', { prediction: { type: 'words' } }, ['invalid_value', 'prediction.type']),
    chat('top_p above 1', { top_p: 1.5 }, ['invalid_value', 'top_p']),
    chat('seed with a fraction', { seed: 1.5 }, ['invalid_value', 'seed']),
    chat('seed beyond exact numbers', { seed: 1e300 }, ['invalid_value', 'seed']),
    chat('no tokens', { max_tokens: 0 }, ['invalid_value', 'max_tokens']),
    chat('a fraction of a token', { max_completion_tokens: 0.5 }, ['invalid_value', 'max_completion_tokens']),
    chat('two limits that differ', { max_tokens: 5, max_completion_tokens: 6 }, ['invalid_value', 'max_tokens']),
    chat('empty stop', { stop: '' }, ['invalid_value', 'stop']),
    chat('five stops', { stop: ['a', 'b', 'c', 'd', 'e'] }, ['invalid_value', 'stop']),
    chat('an empty stop among others', { stop: ['a', ''] }, ['invalid_value', 'stop[1]']),
    chat('n of 0', { n: 0 }, ['invalid_value', 'n']),
    chat('n of 1000', { n: 1_000 }, ['invalid_value', 'n']),
    chat('a string for stream', { stream: 'true' }, ['invalid_value', 'stream']),
    chat('stream_options without stream', { stream_options: { include_usage: true } }, ['invalid_value', 'stream_options']),
    chat('unknown stream option', { stream: true, stream_options: { colour: true } }, ['unknown_field', 'stream_options.colour']),
    chat('a string for a stream option', { stream: true, stream_options: { include_obfuscation: 'yes' } }, [
      'invalid_value',
      'stream_options.include_obfuscation',
    ]),
    chat('a number for user', { user: 5 }, ['invalid_value', 'user']),
    chat('metadata of seventeen', { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v'])) }, [
      'invalid_value',
      'metadata',
    ]),
    chat('nested metadata', { metadata: { a: { b: 1 } } }, ['invalid_value', 'metadata.a']),
    chat('unknown field', { temprature: 1 }, ['unknown_field', 'temprature']),
    chat('an unknown field with a very long name', { ['x'.repeat(5_000)]: 1 }, ['unknown_field', `${'x'.repeat(64)}…`]),
    ...Object.entries(UNSUPPORTED).map(([field, value]) =>
      chat(`unsupported ${field}`, { [field]: value }, ['unsupported_field', field]),
    ),

    // Our extension
    ours('a string for palimpsest', 'on', ['invalid_value', 'palimpsest']),
    ours('unknown extension field', { edit: 'on' }, ['unknown_field', 'palimpsest.edit']),
    ours('unknown choice of edits', { edits: 'maybe' }, ['invalid_value', 'palimpsest.edits']),
    ours('numbers for edits', { edits: [1] }, ['invalid_value', 'palimpsest.edits']),
    ours('an edit that does not exist', { edits: ['e_none'] }, ['edit_not_found', 'palimpsest.edits', 404]),
    ours('unknown template', { template: 'no-such' }, ['template_not_found', 'palimpsest.template']),
    ours('a path for a template', { template: '../../etc/passwd' }, ['template_not_found', 'palimpsest.template']),
    ours('a string for tags', { tags: 'x' }, ['invalid_value', 'palimpsest.tags']),
    ours('a tenant with a slash', { tenant: 'a/b' }, ['invalid_value', 'palimpsest.tenant']),
    ours('a number for as_of', { as_of: 5 }, ['invalid_value', 'palimpsest.as_of']),
    ours('30 February', { as_of: '2026-02-30' }, ['invalid_value', 'palimpsest.as_of']),
    ours('a time without offset', { as_of: '2026-02-03T10:00:00' }, ['invalid_value', 'palimpsest.as_of']),
    ours('a string for explain', { explain: 'yes' }, ['invalid_value', 'palimpsest.explain']),
    chat(
      'two tenants',
      { palimpsest: { tenant: 'a' } },
      ['invalid_value', 'palimpsest.tenant'],
      [...JSON_TYPE, ['Palimpsest-Tenant', 'b']],
    ),
    chat('a bad tenant header', {}, ['invalid_value', 'palimpsest.tenant'], [...JSON_TYPE, ['Palimpsest-Tenant', 'a b']]),

    // Routes
    get('/v1/nothing', ['route_not_found', null, 404]),
    get('/v1/chat/completions', ['method_not_allowed', null, 405]),
    get('/v1/models', ['method_not_allowed', null, 405], 'DELETE'),
    get('/health', ['method_not_allowed', null, 405], 'PUT'),
    get('/v1/edits/withdraw', ['method_not_allowed', null, 405]),
    get('/v1/models/gpt-4o', ['model_not_found', 'model', 404]),
    get('/v1/models/%E0%A4%A', ['invalid_value']),
    get('/v1/edits/%ff', ['invalid_value']),
    get('/v1/models', ['origin_refused', null, 403], 'GET', [['Origin', 'https://example.org']]),
    get('/v1/models', ['origin_refused', null, 403], 'GET', [['Origin', 'null']]),
    get('/v1/models', ['origin_refused', null, 403], 'GET', [['Host', 'rebound.example.org']]),

    // Reading edits
    get('/v1/edits?cursor=%00nonsense', ['invalid_value', 'cursor']),
    get('/v1/edits?limit=0', ['invalid_value', 'limit']),
    get('/v1/edits?limit=1e3', ['invalid_value', 'limit']),
    get('/v1/edits?limit=100000', ['invalid_value', 'limit']),
    get('/v1/edits?limit=1&limit=2', ['invalid_value', 'limit']),
    get('/v1/edits?state=dead', ['invalid_value', 'state']),
    get('/v1/edits?colour=red', ['unknown_field', 'colour']),
    get('/v1/edits?tenant=..%2F..', ['invalid_value', 'tenant']),
    get('/v1/edits/e_none', ['edit_not_found', 'id', 404]),
    get(`/v1/edits/${'x'.repeat(5_000)}`, ['invalid_value', 'id']),
    get('/v1/edits/e_none', ['edit_not_found', 'id', 404], 'DELETE'),
    get('/v1/batches/b_none', ['batch_not_found', 'id', 404]),
    get('/v1/batches?cursor=nonsense', ['invalid_value', 'cursor']),

    // Landing edits
    post('a batch that is not JSON', '/v1/edits', '{"subject":', ['invalid_batch']),
    post('an empty batch', '/v1/edits', '[]', ['invalid_batch']),
    post('no batch', '/v1/edits', '', ['invalid_batch']),
    post('a number for a batch', '/v1/edits', '5', ['invalid_batch']),
    post('an edit without a target', '/v1/edits', edit({ target_new: undefined }), ['invalid_batch', 'target_new']),
    post('an unknown field in an edit', '/v1/edits', edit({ targetnew: 'x' }), ['invalid_batch', 'targetnew']),
    post('a bad date in an edit', '/v1/edits', edit({ valid_from: '2026-13-01' }), ['invalid_batch', 'valid_from']),
    post('an edit of another tenant', '/v1/edits', edit({ tenant: 'somebody-else' }), ['invalid_batch', 'tenant']),
    post(
      'a bad line in NDJSON',
      '/v1/edits',
      `${edit({})}\n{"subject":5}\n`,
      ['invalid_batch', 'subject'],
      [['Content-Type', 'application/x-ndjson']],
    ),
    post('a deep batch', '/v1/edits', deep, ['invalid_batch']),
    post('a deep batch in YAML', '/v1/edits', deep, ['invalid_batch'], [['Content-Type', 'application/yaml']]),
    post('a batch in XML', '/v1/edits', '<edit/>', ['unsupported_media_type', null, 415], [['Content-Type', 'application/xml']]),
    post('unknown format', '/v1/edits?format=excel', edit({}), ['invalid_value', 'format']),
    post('unknown dry_run', '/v1/edits?dry_run=perhaps', edit({}), ['invalid_value', 'dry_run']),
    post('a batch name with a space', '/v1/edits?batch=a%20b', edit({}), ['invalid_value', 'batch']),
    post(
      'two names for a batch',
      '/v1/edits?batch=a',
      edit({}),
      ['invalid_value', 'batch'],
      [...JSON_TYPE, ['Idempotency-Key', 'b']],
    ),

    // Changing and explaining
    post('withdraw nothing', '/v1/edits/withdraw', '{"ids":[]}', ['invalid_value', 'ids']),
    post('withdraw without ids', '/v1/edits/withdraw', '{}', ['missing_field', 'ids']),
    post('withdraw what does not exist', '/v1/edits/withdraw', '{"ids":["e_none"]}', ['edit_not_found', 'ids', 404]),
    post('withdraw one that does not exist', '/v1/edits/e_none/withdraw', '', ['edit_not_found', 'id', 404]),
    post('restore one that does not exist', '/v1/edits/e_none/restore', '', ['edit_not_found', 'id', 404]),
    post('withdraw a batch that does not exist', '/v1/batches/b_none/withdraw', '', ['batch_not_found', 'id', 404]),
    post('restore a batch that does not exist', '/v1/batches/b_none/restore', '', ['batch_not_found', 'id', 404]),
    post('explain nothing', '/v1/edits/explain', '{}', ['missing_field', 'question']),
    post('explain an empty question', '/v1/edits/explain', '{"question":""}', ['invalid_value', 'question']),
    post('explain two things', '/v1/edits/explain', JSON.stringify({ question: 'x', messages: user }), [
      'invalid_value',
      'messages',
    ]),
    post('explain with an unknown template', '/v1/edits/explain', '{"question":"x","template":"no-such"}', [
      'template_not_found',
      'template',
    ]),
    post('search with a bad limit', '/v1/edits/search', '{"limit":"5"}', ['invalid_value', 'limit']),
  ]
}

/** A value that asks for something, for each of OpenAI's fields that the gateway cannot honour. */
export const UNSUPPORTED: Readonly<Record<string, unknown>> = {
  audio: { voice: 'alloy', format: 'wav' },
  function_call: 'auto',
  functions: [{ name: 'f' }],
  modalities: ['text', 'audio'],
  moderation: { model: 'omni' },
  reasoning_effort: 'high',
  service_tier: 'priority',
  store: true,
  verbosity: 'low',
  web_search_options: {},
}

const tool = (name: string, fields: object = {}) => ({ type: 'function', function: { name, ...fields } })
