"""The client `ollama` of PyPI against a daemon: OLLAMA_HOST says where. Its model is `smollm2`, with `minilm` for embeddings."""

import asyncio
import os

import httpx
import ollama
import pydantic

MODEL = "smollm2:135m"
GREEDY = {"temperature": 0, "num_predict": 24}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def models() -> None:
    listed = {model.model: model for model in ollama.list().models}
    assert MODEL in listed, listed
    assert listed[MODEL].size > 90_000_000 and listed[MODEL].modified_at.year > 2000
    shown = ollama.show(MODEL)
    assert "completion" in shown.capabilities, shown.capabilities
    assert shown.modelinfo["general.architecture"] == "llama", shown.modelinfo
    assert shown.details.format == "gguf" and shown.template
    assert ollama.copy(MODEL, "copied").status == "success"
    assert "copied:latest" in [model.model for model in ollama.list().models]
    assert ollama.delete("copied").status == "success"
    created = ollama.create("pirate", from_=MODEL, system="You are a pirate.", parameters={"num_predict": 5})
    assert created.status == "success"
    assert ollama.show("pirate").parameters.split() == ["num_predict", "5"]
    ollama.delete("pirate")


def answers() -> None:
    whole = ollama.generate(MODEL, "The sea is", options=GREEDY)
    assert whole.done and whole.done_reason in ("stop", "length") and whole.response
    assert whole.eval_count and whole.prompt_eval_count and whole.total_duration > whole.eval_duration
    pieces = list(ollama.generate(MODEL, "The sea is", options=GREEDY, stream=True))
    assert len(pieces) > 2 and pieces[-1].done and not pieces[0].done
    again = ollama.generate(MODEL, "And the sky?", context=whole.context, options=GREEDY)
    assert again.prompt_eval_count > whole.prompt_eval_count + whole.eval_count

    spoken = ollama.chat(MODEL, user("Say hello."), options=GREEDY)
    assert spoken.message.role == "assistant" and spoken.message.content
    told = "".join(piece.message.content for piece in ollama.chat(MODEL, user("Say hello."), options=GREEDY, stream=True))
    assert told.strip()

    running = ollama.ps().models
    assert [model.model for model in running] == [MODEL] and running[0].expires_at.year > 2000
    assert ollama.generate(MODEL, keep_alive=0).done_reason == "unload"


def logprobs() -> None:
    said = ollama.chat(MODEL, user("Hi"), logprobs=True, top_logprobs=3, options=GREEDY)
    assert said.logprobs and all(len(place.top_logprobs) == 3 for place in said.logprobs)


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=150)
    likes: list[str] = pydantic.Field(max_length=2)


def structured() -> None:
    said = ollama.chat(MODEL, user("Ada is 36 and likes mathematics."), format=Person.model_json_schema(), options={"temperature": 0})
    Person.model_validate_json(said.message.content)


def temperature(city: str, unit: str = "celsius") -> str:
    """The temperature in a city.

    Args:
        city: Its name
        unit: celsius or fahrenheit
    """
    return f"21 {unit} in {city}"


def tools() -> None:
    messages = user("What is the temperature in Oslo?")
    said = ollama.chat(MODEL, messages, tools=[temperature], options={"temperature": 0, "num_predict": 60})
    # A model of this size may just talk.
    for call in said.message.tool_calls or []:
        assert call.function.name == "temperature" and isinstance(call.function.arguments, dict)
    call = {"function": {"name": "temperature", "arguments": {"city": "Oslo"}}}
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "temperature", "content": temperature("Oslo")},
    ]
    assert ollama.chat(MODEL, messages, tools=[temperature], options=GREEDY).message.content.strip()


def embeddings() -> None:
    reply = ollama.embed("minilm", ["A cat sat on the mat.", "A kitten rests on a rug.", "Shares fell sharply."])
    cat, kitten, shares = reply.embeddings
    alike = [sum(a * b for a, b in zip(cat, other)) for other in (kitten, shares)]
    assert len(cat) == 384 and alike[0] > alike[1], alike
    assert len(ollama.embed("minilm", "A cat.", dimensions=64).embeddings[0]) == 64
    assert len(ollama.embeddings("minilm", "A cat.").embedding) == 384


def errors() -> None:
    for mistake, status in [
        (lambda: ollama.chat("none", user("hi")), 404),
        (lambda: ollama.show("none"), 404),
        (lambda: ollama.delete("none"), 404),
        (lambda: next(ollama.generate("none", "hi", stream=True)), 404),
        (lambda: ollama.generate(MODEL, "hi", raw=True, system="s"), 400),
        (lambda: ollama.generate(MODEL, "hi", think=True), 400),
    ]:
        try:
            mistake()
        except ollama.ResponseError as error:
            assert error.status_code == status, error
            assert status != 404 or "model 'none' not found" in error.error, error.error
        else:
            raise AssertionError(f"{status} was expected")


def over_the_socket() -> None:
    client = ollama.Client("http://localhost", transport=httpx.HTTPTransport(uds=os.environ["HEARTH_SOCKET"]))
    pieces = list(client.chat(MODEL, user("Say hello."), options=GREEDY, stream=True))
    assert len(pieces) > 2 and pieces[-1].done


async def at_once() -> None:
    client = ollama.AsyncClient()

    async def one(text: str) -> str:
        told = ""
        async for piece in await client.chat(MODEL, user(text), options=GREEDY, stream=True):
            told += piece.message.content
        return told

    told = await asyncio.gather(*(one(f"Count to {n}.") for n in range(3, 7)))
    assert all(text.strip() for text in told), told
    # One that nobody reads to its end.
    async for _ in await client.generate(MODEL, "Tell me a long story.", stream=True):
        break
    assert (await client.embed("minilm", "one")).embeddings


for test in [models, answers, logprobs, structured, tools, embeddings, errors, over_the_socket]:
    test()
asyncio.run(at_once())
print("all is well")
