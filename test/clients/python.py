"""Asks a gateway as a user of the official Python client would. Arguments: base URL and model. Prints one JSON object."""
import json
import sys

import openai

base, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0)
said = {}

answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}])
said["chat"] = answer.choices[0].message.content
said["arm"] = answer.palimpsest["arm"]

stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Hello"}],
    stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
said["streamed"] = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
said["usage"] = chunks[-1].usage.total_tokens > 0

tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
called = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Weather?"}], tools=[tool])
said["tool"] = [called.choices[0].finish_reason, called.choices[0].message.tool_calls[0].function.arguments]

said["response"] = client.responses.create(model=model, input="Hello").output_text
with client.responses.stream(model=model, input="Hello") as events:
    for _ in events:
        pass
    said["response_streamed"] = events.get_final_response().output_text

said["completion"] = client.completions.create(model=model, prompt="Once upon a time").choices[0].text
said["dimensions"] = len(client.embeddings.create(model="fake", input=["a", "b"]).data[1].embedding)
# By default the client asks for base64, and makes numbers of it.
by_default = client.embeddings.create(model="fake", input=["a", "b"]).data
numbers = client.embeddings.create(model="fake", input=["a", "b"], encoding_format="float").data
said["embeddings_equal"] = [one.embedding for one in by_default] == [one.embedding for one in numbers]
said["models"] = [one.id for one in client.models.list()]

errors = {}
for name, ask in {
    "bad_request": lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], temperature=9),
    "not_found": lambda: client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}]),
}.items():
    try:
        ask()
    except openai.APIStatusError as error:
        errors[name] = [type(error).__name__, error.status_code, error.code, error.param]
said["errors"] = errors
print(json.dumps(said))
