"""What Anthropic's own client does with a daemon."""

import asyncio
import json

import anthropic
import httpx2
from daemon import CHAT, SOCKET, URL, WEATHER, every

client = anthropic.Anthropic(base_url=URL, api_key="any", max_retries=0)
QUESTION = [{"role": "user", "content": "Tell me about the sea."}]
TOOL = {"name": "get_weather", "description": "Tells the weather in a city.", "input_schema": WEATHER}


def asked(**more):
    # This version of the client has no parameter for the temperature any more.
    return {"model": CHAT, "max_tokens": 24, "messages": QUESTION, "extra_body": {"temperature": 0}, **more}


def fits(call):
    assert call.type == "tool_use" and call.name == "get_weather" and call.id, call
    assert list(call.input) == ["city", "days"] and 1 <= call.input["days"] <= 7, call


def raises(kind, status, **more):
    try:
        client.messages.create(**asked(**more))
    except kind as error:
        assert error.status_code == status and error.body["error"]["message"], error
        assert error.request_id == error.body["request_id"], error
    else:
        raise AssertionError(f"{more} raised nothing")


def whole():
    message = client.messages.create(**asked(system="Be brief."))
    assert message.role == "assistant" and message.model == CHAT and message._request_id, message
    assert message.content[0].type == "text" and message.content[0].text, message
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 24, message


def streaming():
    with client.messages.stream(**asked()) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 5 and "".join(pieces) == message.content[0].text, pieces
    usage = message.usage
    again = client.messages.create(**asked()).usage
    assert again.input_tokens == 1 and again.cache_read_input_tokens > 5, again
    assert usage.input_tokens + usage.cache_read_input_tokens == again.input_tokens + again.cache_read_input_tokens
    assert again.cache_creation_input_tokens == 0


def events():
    kinds = [event.type for event in client.messages.create(**asked(), stream=True)]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
    assert kinds.index("content_block_start") < kinds.index("content_block_delta") < kinds.index("content_block_stop")


def stop_sequence():
    text = client.messages.create(**asked()).content[0].text
    word = text.split()[4]
    message = client.messages.create(**asked(stop_sequences=["never-said", word]))
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == word, message
    assert message.content[0].text == text[: text.index(word)], message


def tools():
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    more = {"messages": question, "tools": [TOOL], "tool_choice": {"type": "any"}, "max_tokens": 200}
    message = client.messages.create(**asked(**more))
    assert message.stop_reason == "tool_use", message
    fits(message.content[-1])
    with client.messages.stream(**asked(**more)) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        streamed = stream.get_final_message()
    fits(streamed.content[-1])
    assert len(pieces) > 1 and json.loads("".join(pieces)) == streamed.content[-1].input, pieces

    result = {"type": "tool_result", "tool_use_id": message.content[-1].id, "content": [{"type": "text", "text": "Rain."}]}
    talk = [*question, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(**asked(messages=talk, tools=[TOOL], tool_choice={"type": "none"}))
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.content[0].text, answer


def count():
    def tokens(**more):
        return client.messages.count_tokens(model=CHAT, messages=QUESTION, **more).input_tokens

    usage = client.messages.create(**asked()).usage
    assert tokens() == usage.input_tokens + usage.cache_read_input_tokens
    assert tokens(system="You know all of it. " * 20) > tokens()


def errors():
    raises(anthropic.NotFoundError, 404, model="no-such-model")
    raises(anthropic.BadRequestError, 400, max_tokens=-1)
    raises(anthropic.BadRequestError, 400, messages=[{"role": "user", "content": "word " * 20_000}])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    raises(anthropic.BadRequestError, 400, messages=[{"role": "user", "content": [image]}])


def over_the_socket():
    transport = httpx2.HTTPTransport(uds=SOCKET)
    with anthropic.DefaultHttpxClient(transport=transport) as http:
        socket = anthropic.Anthropic(base_url="http://localhost", api_key="any", http_client=http)
        with socket.messages.stream(**asked()) as stream:
            assert "".join(stream.text_stream)


async def at_once():
    async with anthropic.AsyncAnthropic(base_url=URL, api_key="any", max_retries=0) as many:
        messages = await asyncio.gather(*(many.messages.create(**asked()) for _ in range(4)))
        assert all(message.content[0].text for message in messages), messages
        async with many.messages.stream(**asked(max_tokens=4000)) as stream:
            async for _ in stream.text_stream:
                # Leaving ends the answer.
                break


every(whole, streaming, events, stop_sequence, tools, count, errors, over_the_socket, at_once)
