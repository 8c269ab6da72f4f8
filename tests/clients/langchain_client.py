"""LangChain, with its packages for Ollama's API and OpenAI's: what its users do, with either package."""

import asyncio
import gc

import httpx
import httpx2
import ollama
import openai
from daemon import CHAT, EMBEDDING, SOCKET, URL, Person, every, leaves
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = "Tell me about the sea."


def by_ollama(model=CHAT, **more):
    return ChatOllama(**{"model": model, "base_url": URL, "temperature": 0, "num_predict": 24, **more})


def by_openai(model=CHAT, **more):
    options = {"base_url": f"{URL}/v1", "api_key": "any", "temperature": 0, "max_tokens": 24, "max_retries": 0}
    return ChatOpenAI(**{"model": model, **options, **more})


@tool
def get_weather(city: str) -> str:
    """Tells the weather in a city."""
    return f"It rains in {city}."


def answers():
    for chat in (by_ollama(), by_openai(stream_usage=True)):
        whole = chat.invoke([("system", "Be brief."), ("user", QUESTION)])
        assert whole.content and whole.usage_metadata["output_tokens"] == 24, whole
        pieces = list(chat.stream(QUESTION))
        together = sum(pieces[1:], start=pieces[0])
        assert len(pieces) > 5 and together.content and together.usage_metadata["output_tokens"] == 24, together


def over_the_socket():
    transport = httpx.HTTPTransport(uds=SOCKET)
    socket = by_ollama(base_url="http://localhost", client_kwargs={"transport": transport})
    assert "".join(piece.content for piece in socket.stream(QUESTION))
    client = openai.DefaultHttpxClient(transport=httpx2.HTTPTransport(uds=SOCKET))
    socket = by_openai(base_url="http://localhost/v1", http_client=client)
    assert "".join(piece.content for piece in socket.stream(QUESTION))


def tools_run():
    question = HumanMessage("What is the weather in Paris?")
    forced = by_openai(max_tokens=200).bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    said = forced.invoke([question])
    [call] = said.tool_calls
    assert call["name"] == "get_weather" and list(call["args"]) == ["city"] and call["id"], said
    pieces = list(forced.stream([question]))
    [streamed] = sum(pieces[1:], start=pieces[0]).tool_calls
    assert streamed["args"] == call["args"], streamed
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    talk = [question, said, result]
    # A model of this size may just talk, where nothing forces it.
    for chat in (by_ollama().bind_tools([get_weather]), by_openai().bind_tools([get_weather], tool_choice="none")):
        assert chat.invoke(talk).content
    for made in by_ollama().bind_tools([get_weather]).invoke([question]).tool_calls:
        assert made["name"] == "get_weather" and isinstance(made["args"], dict), made


def fits_a_class():
    roomy = {"num_predict": 200}
    for chat in (
        by_ollama(**roomy).with_structured_output(Person),
        by_openai(max_tokens=200).with_structured_output(Person),
        by_openai(max_tokens=200).with_structured_output(Person, method="function_calling"),
    ):
        person = chat.invoke("Invent a person.")
        assert isinstance(person, Person), person


def embeds():
    product = lambda a, b: sum(x * y for x, y in zip(a, b))
    # Its length check counts with OpenAI's own tokens.
    openais = OpenAIEmbeddings(model=EMBEDDING, base_url=f"{URL}/v1", api_key="any", check_embedding_ctx_length=False)
    for embeddings in (OllamaEmbeddings(model=EMBEDDING, base_url=URL), openais):
        cat, kitten, bank = embeddings.embed_documents(["a cat", "a kitten", "a bank account"])
        assert len(cat) == 384 and product(cat, kitten) > product(cat, bank) + 0.2
        assert product(embeddings.embed_query("a cat"), cat) > 0.99


def mistakes_are_typed():
    for kind, chat in ((ollama.ResponseError, by_ollama("none")), (openai.NotFoundError, by_openai("none"))):
        for ask in (chat.invoke, lambda text, chat=chat: list(chat.stream(text))):
            try:
                ask("hi")
            except kind as error:
                assert error.status_code == 404, error
            else:
                raise AssertionError(f"no {kind.__name__}")


async def at_once():
    product = await OllamaEmbeddings(model=EMBEDDING, base_url=URL).aembed_query("a cat")
    assert len(product) == 384
    for chat in (by_ollama(), by_openai()):
        assert all(reply.content for reply in await chat.abatch([f"Count to {n}." for n in range(3)]))
    person = await by_openai(max_tokens=200).with_structured_output(Person).ainvoke("Invent a person.")
    assert isinstance(person, Person), person
    for chat in (by_ollama(num_predict=8000), by_openai(max_tokens=8000)):
        await leaves(chat.astream(QUESTION))
        # LangChain leaves its inner generators, which hold the connection, to the collector.
        gc.collect()
        await idle()


async def idle():
    """Waits until no answer is computed any more, while this process and its connections go on."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "model.ps"}
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=SOCKET)) as client:
        async with asyncio.timeout(300):
            while any(model["active_requests"] for model in (await client.post("http://hearth/rpc", json=call)).json()["result"]["models"]):
                pass


every(answers, over_the_socket, tools_run, fits_a_class, embeds, mistakes_are_typed, at_once)
