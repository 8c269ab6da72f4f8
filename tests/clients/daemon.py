"""What the clients in Python have of the daemon that they talk to: HEARTH_URL and HEARTH_SOCKET say where it is."""

import asyncio
import inspect
import os

from pydantic import BaseModel, Field

URL, SOCKET = os.environ["HEARTH_URL"], os.environ["HEARTH_SOCKET"]
CHAT, EMBEDDING = "smollm2:135m", "minilm"

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


class Person(BaseModel):
    """A person."""

    age: int = Field(ge=0, le=120)
    name: str = Field(max_length=20)


def raises(kind, code, call):
    """What OpenAI's client raises: an error of this kind, with this code and a message."""
    try:
        call()
    except kind as error:
        assert error.code == code, (error.code, error.body)
        assert error.body["message"], error.body
    else:
        raise AssertionError(f"no {kind.__name__}")


async def leaves(stream):
    """Hears the first of a stream that would go on, and goes."""
    begun = asyncio.Event()

    async def listen():
        async for _ in stream:
            begun.set()

    listening = asyncio.create_task(listen())
    await begun.wait()
    listening.cancel()
    try:
        await listening
    except asyncio.CancelledError:
        pass


def leaves_at_once(stream):
    """The same of a stream that is not awaited."""
    next(iter(stream))
    stream.close()


def every(*checks):
    """Each is one thing that users do. The first that fails ends the script with a traceback."""
    for check in checks:
        done = check()
        if inspect.iscoroutine(done):
            asyncio.run(done)
        print(check.__name__)
    print("all is well")
