"""A server that a test writes byte by byte, where an HTTP server would be too polite."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def byte_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Answer each connection in a task of its own; gives host and port. At the end all of them have ended.

    So an ``answer`` that reads to the end sees that whoever connected has hung up.
    """
    answers: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await answer(reader, writer)

    server = await asyncio.start_server(take, HOST, 0)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*answers)
