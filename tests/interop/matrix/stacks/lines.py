"""The client's end of the protocol, for clients in Python."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Command = dict[str, Any]
_LINE_BYTES = 1 << 20


def say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event} | fields) + "\n")
    sys.stdout.flush()


def say_message(channel: str, message: str | bytes) -> None:
    content = message.encode() if isinstance(message, str) else message
    kind = "text" if isinstance(message, str) else "binary"
    say("message", channel=channel, kind=kind, size=len(content), sha256=hashlib.sha256(content).hexdigest())


async def serve(handle: Callable[[Command], Awaitable[None]]) -> None:
    """Do one command after the other, until stdin ends."""
    lines = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        try:
            await handle(json.loads(line))
        except Exception as error:
            say("error", text=f"{line.decode()[:200].strip()}: {error!r}")
