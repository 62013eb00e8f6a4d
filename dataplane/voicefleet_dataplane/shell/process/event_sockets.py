"""What both ends of a sideband's WebSockets share: times, and an end that nobody can hold up.

Owns: those. Does not own: what is said (watcher_socket at the owner, gateway/api/sideband at the gateway).
"""

import asyncio
import contextlib
from enum import IntEnum
from typing import Protocol

from aiohttp import web

HEARTBEAT_S = 20.0  # a ping; who does not answer within half of it is gone
CLOSE_WITHIN_S = 2.0
SEND_WITHIN_S = 10.0  # for one event: longer takes only who does not read


class Close(IntEnum):
    """How a sideband ends (RFC 6455 section 7.4.1)."""

    CALL_ENDED = 1000
    LEAVING = 1001  # this gateway goes: another one takes the same request
    NOT_TEXT = 1003
    NOT_READ = 1008
    OWNER_LOST = 1011


class Sends(Protocol):
    """A WebSocket, whichever end of it."""

    async def send_str(self, data: str) -> None:
        """Send an event."""


async def send_in_time(socket: Sends, event: str) -> bool:
    """Send an event; False when the other side does not take it, or is gone."""
    try:
        async with asyncio.timeout(SEND_WITHIN_S):
            await socket.send_str(event)
    except (TimeoutError, ConnectionError, RuntimeError):  # RuntimeError: closed meanwhile
        return False
    return True


async def close_socket(request: web.Request, socket: web.WebSocketResponse, code: Close, why: str) -> None:
    """Say good-bye, and let go of who does not hear it."""
    with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await socket.close(code=code, message=why.encode())
            return
    if request.transport is not None:  # else it would keep what it was not read until the other end goes
        request.transport.abort()
