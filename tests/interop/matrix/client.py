"""A client's process: commands go in, events come out."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
READY_WITHIN_S = 40.0  # a browser on a busy machine
PATIENCE_S = 10.0
_LINE_BYTES = 1 << 20


class ClientError(AssertionError):
    """The client could not do what it was asked; the text is its own."""


class Client:
    """One running client. Events that nobody has waited for yet stay, whatever their order."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self.version = ""
        self.patience_s = PATIENCE_S

    async def do(self, command: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command} | fields).encode() + b"\n")
        await self._process.stdin.drain()

    async def event(self, kind: str, within_s: float | None = None, **fields: Any) -> dict[str, Any]:
        """Wait for an event with these fields, and take it. `at` is when it came. Raises TimeoutError, or ClientError if the client cannot."""
        wanted = {"event": kind} | fields
        within_s = self.patience_s if within_s is None else within_s
        try:
            async with asyncio.timeout(within_s), self._news:
                while True:
                    for number, event in enumerate(self._events):
                        if wanted.items() <= event.items():
                            return self._events.pop(number)
                        if event["event"] == "error":
                            raise ClientError(self._events.pop(number)["text"])
                    if self.is_over:
                        raise ClientError(f"the client ended: {self._log.read_text(errors='replace')[-2000:]}")
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"no {wanted} within {within_s:g} s; there is {self._events[-5:]}") from None

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self._process.stdout is None or self._process.stdout.at_eof()

    def forget(self) -> None:
        """Drop events of the call before."""
        self._events.clear()

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._news:
                self._events.append(json.loads(line) | {"at": time.monotonic()})
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


@contextlib.asynccontextmanager
async def running(argv: Sequence[str], folder: Path) -> AsyncIterator[Client]:
    """Start a client and end it; its log is in the folder."""
    log = folder / "client.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=_LINE_BYTES,
        )
    client = Client(process, log)
    reader = asyncio.create_task(client.read())
    try:
        client.version = (await client.event("ready", READY_WITHIN_S))["version"]
        yield client
    finally:
        assert process.stdin is not None
        process.stdin.close()  # which asks it to end
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        reader.cancel()
