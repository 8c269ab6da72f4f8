"""What OpenAI's own client does with responses."""

import asyncio
import json
import time

import openai
from daemon import CHAT, URL, WEATHER, Person, every, leaves_at_once, raises

base_url = f"{URL}/v1"
client = openai.OpenAI(base_url=base_url, api_key="any", max_retries=0)
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather in a city.",
    "strict": True,
    "parameters": WEATHER,
}


def ask(text="Tell me about the sea.", **more):
    return client.responses.create(model=CHAT, input=text, temperature=0, **more)


def answers():
    reply = ask(max_output_tokens=16, instructions="Be brief.")
    assert reply.output_text and reply.status == "incomplete", reply
    assert reply.incomplete_details.reason == "max_output_tokens", reply
    usage = reply.usage
    assert usage.output_tokens == 16 and usage.total_tokens == usage.input_tokens + 16, usage
    again = ask(max_output_tokens=16, instructions="Be brief.")
    assert again.usage.input_tokens_details.cached_tokens == usage.input_tokens - 1, again.usage
    counted = client.responses.input_tokens.count(model=CHAT, input="Tell me about the sea.", instructions="Be brief.")
    assert counted.input_tokens == usage.input_tokens, counted


def follows_and_forgets():
    first = ask("My name is Ada.", max_output_tokens=8)
    second = ask("What is my name?", previous_response_id=first.id, max_output_tokens=8)
    third = ask("What is my name?", previous_response_id=first.id, max_output_tokens=8)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens == third.usage.input_tokens > first.usage.input_tokens
    found = client.responses.retrieve(second.id)
    assert found.output_text == second.output_text and found.usage == second.usage, found
    items = client.responses.input_items.list(second.id).data
    assert [item.role for item in items] == ["user"], items
    client.responses.delete(first.id)
    raises(openai.NotFoundError, "session_not_found", lambda: client.responses.retrieve(first.id))
    raises(openai.BadRequestError, "previous_response_not_found", lambda: ask(previous_response_id=first.id))
    assert ask("And now?", previous_response_id=second.id, max_output_tokens=4).output_text


def streams():
    whole = ask(max_output_tokens=16).output_text
    events = list(ask(max_output_tokens=16, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ], kinds
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ], kinds
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole
    with client.responses.stream(model=CHAT, input="Say hello.", max_output_tokens=8, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text, kinds


def required_tool_streams():
    with client.responses.stream(
        model=CHAT, input="Tell me about the sea.", tools=[TOOL], tool_choice="required", max_output_tokens=200
    ) as stream:
        kinds = [event.type for event in stream]
        reply = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds and kinds[-1] == "response.completed", kinds
    (call,) = reply.output
    arguments = json.loads(call.arguments)
    assert call.type == "function_call" and call.name == "get_weather" and list(arguments) == ["city", "days"], call
    said = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    more = ask([said], previous_response_id=reply.id, tools=[TOOL], tool_choice="none", max_output_tokens=8)
    assert more.output_text, more
    # And as clients do that keep the conversation themselves.
    items = [{"role": "user", "content": "Tell me about the sea."}, *(item.to_dict() for item in reply.output), said]
    same = ask(items, tools=[TOOL], tool_choice="none", max_output_tokens=8, store=False)
    assert same.usage.input_tokens == more.usage.input_tokens, (same.usage, more.usage)


def fits_a_class():
    reply = client.responses.parse(model=CHAT, input="Invent a person.", text_format=Person, max_output_tokens=200)
    assert isinstance(reply.output_parsed, Person), reply
    assert list(json.loads(reply.output_text)) == ["age", "name"], reply
    with client.responses.stream(model=CHAT, input="Invent a person.", text_format=Person, max_output_tokens=200) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Person)


def says_how_likely():
    reply = ask(max_output_tokens=4, top_logprobs=3, include=["message.output_text.logprobs"])
    places = reply.output[0].content[0].logprobs
    assert len(places) == 4 and len(places[0].top_logprobs) == 3, places


def goes_on_in_the_background():
    begun = ask(max_output_tokens=8, background=True)
    assert begun.status in ("queued", "in_progress"), begun
    while (reply := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
        time.sleep(0.01)
    assert reply.status == "incomplete" and reply.output_text == ask(max_output_tokens=8).output_text, reply
    events = list(client.responses.retrieve(begun.id, stream=True, starting_after=3))
    assert events[-1].type == "response.incomplete" and events[0].sequence_number > 3, events

    stream = ask("Count to a thousand.", background=True, stream=True)
    endless = next(iter(stream)).response.id
    stream.close()
    assert client.responses.cancel(endless).status == "cancelled"
    assert client.responses.retrieve(endless).status == "cancelled"


def mistakes_are_typed():
    raises(openai.NotFoundError, "model_not_found", lambda: client.responses.create(model="none", input="hi"))
    raises(openai.BadRequestError, "unsupported", lambda: ask(tools=[{"type": "web_search"}]))
    raises(openai.BadRequestError, "context_length_exceeded", lambda: ask("word " * 20000))
    raises(openai.NotFoundError, "session_not_found", lambda: client.responses.retrieve("resp_none"))


def leaves_in_the_middle():
    leaves_at_once(ask(stream=True))


async def at_once():
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        async def one(n):
            stream = await client.responses.create(model=CHAT, input=f"Count to {n}.", max_output_tokens=8, stream=True)
            return [event.type async for event in stream][-1]

        assert set(await asyncio.gather(*(one(n) for n in range(4)))) <= {"response.completed", "response.incomplete"}


every(
    answers,
    follows_and_forgets,
    streams,
    required_tool_streams,
    fits_a_class,
    says_how_likely,
    goes_on_in_the_background,
    mistakes_are_typed,
    leaves_in_the_middle,
    at_once,
)
