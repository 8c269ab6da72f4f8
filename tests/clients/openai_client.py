"""What OpenAI's own client does with a daemon."""

import asyncio
import json

import httpx2
import openai
from daemon import CHAT, EMBEDDING, SOCKET, URL, WEATHER, Person, every, leaves, leaves_at_once, raises

base_url = f"{URL}/v1"
client = openai.OpenAI(base_url=base_url, api_key="any", max_retries=0)
QUESTION = [{"role": "user", "content": "Tell me about the sea."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "strict": True,
        "parameters": WEATHER,
    },
}


def ask(**more):
    return client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, **more)


def answers():
    reply = ask(max_tokens=16)
    assert reply.choices[0].message.content and reply.choices[0].finish_reason == "length", reply
    usage = reply.usage
    assert usage.completion_tokens == 16 and usage.total_tokens == usage.prompt_tokens + 16, usage
    again = ask(max_completion_tokens=16).usage.prompt_tokens_details.cached_tokens
    assert again == usage.prompt_tokens - 1, again


def streams():
    whole = ask(max_tokens=16, seed=1).choices[0].message.content
    chunks = list(ask(max_tokens=16, seed=1, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 16, chunks[-1]
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == ["length"], chunks
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole


def several_with_chances():
    reply = ask(max_tokens=4, n=2, logprobs=True, top_logprobs=3)
    assert [choice.index for choice in reply.choices] == [0, 1], reply
    for choice in reply.choices:
        assert len(choice.logprobs.content) == 4 and len(choice.logprobs.content[0].top_logprobs) == 3, choice


def required_tool_streams():
    with client.chat.completions.stream(
        model=CHAT, messages=QUESTION, tools=[TOOL], tool_choice="required", max_tokens=200
    ) as stream:
        kinds = [event.type for event in stream]
        reply = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds, set(kinds)
    call = reply.choices[0].message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    assert reply.choices[0].finish_reason == "tool_calls" and call.id, reply
    assert call.function.name == "get_weather" and list(arguments) == ["city", "days"], call
    assert 1 <= arguments["days"] <= 7, arguments
    # The conversation goes on with what the tool said.
    said = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
    messages = [*QUESTION, reply.choices[0].message, said]
    more = client.chat.completions.create(model=CHAT, messages=messages, tools=[TOOL], tool_choice="none", max_tokens=8)
    assert more.choices[0].message.content, more


def fits_a_class():
    reply = client.chat.completions.parse(
        model=CHAT, messages=[{"role": "user", "content": "Invent a person."}], response_format=Person, max_tokens=200
    )
    person = reply.choices[0].message.parsed
    assert isinstance(person, Person) and isinstance(person.age, int), reply
    assert list(json.loads(reply.choices[0].message.content)) == ["age", "name"], reply


def continues_texts():
    reply = client.completions.create(model=CHAT, prompt=["The sea is", "The sky is"], max_tokens=4, echo=True)
    assert [choice.index for choice in reply.choices] == [0, 1], reply
    assert reply.choices[1].text.startswith("The sky is"), reply
    reply = client.completions.create(model=CHAT, prompt="The sea is", max_tokens=4, logprobs=2, stream=True)
    assert sum(len(chunk.choices[0].logprobs.tokens) for chunk in reply if chunk.choices[0].logprobs) == 4


def embeds():
    # This client asks for base64, and makes numbers of it.
    reply = client.embeddings.create(model=EMBEDDING, input=["a cat", "a kitten", "a bank account"])
    cat, kitten, bank = (entry.embedding for entry in reply.data)
    product = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert len(cat) == 384 and abs(product(cat, cat) - 1) < 1e-4
    assert product(cat, kitten) > product(cat, bank) + 0.2
    numbers = client.embeddings.create(model=EMBEDDING, input="a cat", encoding_format="float")
    assert max(abs(x - y) for x, y in zip(cat, numbers.data[0].embedding)) < 1e-5
    assert len(client.embeddings.create(model=EMBEDDING, input="a cat", dimensions=64).data[0].embedding) == 64


def models():
    assert {model.id for model in client.models.list()} == {CHAT, f"{EMBEDDING}:latest"}
    assert client.models.retrieve(CHAT).owned_by == "library"


def mistakes_are_typed():
    raises(openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("who/knows"))
    raises(openai.NotFoundError, "model_not_found", lambda: client.chat.completions.create(model="none", messages=QUESTION))
    raises(openai.BadRequestError, "invalid_params", lambda: ask(n=0))
    long = [{"role": "user", "content": "word " * 20000}]
    raises(
        openai.BadRequestError,
        "context_length_exceeded",
        lambda: client.chat.completions.create(model=CHAT, messages=long),
    )


def over_the_socket():
    transport = httpx2.HTTPTransport(uds=SOCKET)
    with openai.DefaultHttpxClient(transport=transport) as http:
        socket = openai.OpenAI(base_url="http://localhost/v1", api_key="any", http_client=http)
        stream = socket.chat.completions.create(model=CHAT, messages=QUESTION, max_tokens=8, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def leaves_in_the_middle():
    leaves_at_once(ask(stream=True))


async def at_once():
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        async def one(n):
            text = ""
            question = [{"role": "user", "content": f"Count to {n}."}]
            stream = await client.chat.completions.create(model=CHAT, messages=question, max_tokens=8, stream=True)
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
            return text

        assert all(await asyncio.gather(*(one(n) for n in range(4))))
        await leaves(await client.chat.completions.create(model=CHAT, messages=QUESTION, stream=True))


every(
    answers,
    streams,
    several_with_chances,
    required_tool_streams,
    fits_a_class,
    continues_texts,
    embeds,
    models,
    mistakes_are_typed,
    over_the_socket,
    leaves_in_the_middle,
    at_once,
)
