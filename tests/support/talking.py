"""Calls that go on for as long as a test wants, and what was lost of them, counted in frames."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx

from voicefleet_dataplane.shell.client.packet_caller import FRAME_S, Caller, make_identity

FRAMES_PER_CHECK = round(2.0 / FRAME_S)  # between two checks of the caller
_FRAME = b"\xf8\xff\xfe" + bytes(60)  # Opus enough for packets to be counted
_FOR_EVER = 1_000_000


class Talking:
    """A context manager: so many calls under way, each echoed; they are hung up at exit."""

    def __init__(self, url: str, api_key: str, count: int, region: str = "") -> None:
        self._url = f"{url}/v1/realtime/calls" + (f"?region={region}" if region else "")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._count = count

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(verify=False, timeout=15, trust_env=False)
        self.callers = [Caller(self._http, make_identity(), [_FRAME] * _FOR_EVER) for _ in range(self._count)]
        self._tasks = [asyncio.create_task(one.run(self._url, self._headers)) for one in self.callers]
        try:
            await self.hear_more(10)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def hear_more(self, frames: int, within_s: float = 30.0) -> None:
        """Wait until each call has heard so many more frames."""
        goals = [(one, len(one.result.heard) + frames) for one in self.callers]

        async def look() -> bool:
            for task, one in zip(self._tasks, self.callers, strict=True):
                assert not task.done(), f"a call ended: {one.result.error}; lost until then: {self.lost()}"
            return all(len(one.result.heard) >= goal for one, goal in goals)

        await until(f"{frames} more frames of each call", look, within_s)

    def lost(self) -> list[int]:
        """Frames of each call that never came back, but for those that may still be under way."""
        return [len(set(range(max(one.result.heard, default=0))) - set(one.result.heard)) for one in self.callers]

    @property
    def ingresses(self) -> set[str]:
        """Where the calls were told to send."""
        return {one.result.ingress for one in self.callers}


async def until(what: str, look: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    """Wait for what another process will do."""
    try:
        async with asyncio.timeout(within_s):
            while not await look():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {within_s:g} s") from None
