"""A call between a client and the fleet: signalling by the test, channels and audio by the client."""

import asyncio
import contextlib
import itertools
import re
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.interop.matrix.client import Client
from tests.interop.matrix.content import Recording, heard, message, seen
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.media.speech import Samples

Sideband = aiohttp.ClientWebSocketResponse

CALLS = "/v1/realtime/calls"
MOST_BY_DEFAULT = 65_536  # RFC 8841 section 6.1
_CONNECTED_WITHIN_S = 20.0
_numbers = itertools.count(1)


def fresh(name: str) -> str:
    """Return a name that no channel and no file has had: what a client still says of a call before must not be taken for news."""
    return f"{name}-{next(_numbers)}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where calls go, what is said, and what nobody said. `settle_s`: how long to look on after an end, for the table's sake."""

    fleet: DevFleet
    said: Recording
    stranger: Samples
    folder: Path
    settle_s: float = 0.0

    @contextlib.asynccontextmanager
    async def http(self) -> AsyncIterator[aiohttp.ClientSession]:
        trusted = ssl.create_default_context(cafile=str(self.fleet.ca_file))
        async with aiohttp.ClientSession(
            self.fleet.url,
            headers={"Authorization": f"Bearer {self.fleet.api_key}"},
            connector=aiohttp.TCPConnector(ssl=trusted),
        ) as http:
            yield http


class SetUpError(Exception):
    """There is no call, so nothing can be said of what a check is about."""


class Channel:
    """One data channel of a client; the fleet sends back what is sent."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self.name = client, name

    async def opened(self) -> None:
        await self._client.event("open", channel=self.name)

    async def send(self, kind: str, size: int, fill: int = 0, count: int = 1) -> None:
        await self._client.do("send", channel=self.name, kind=kind, size=size, fill=fill, count=count)

    async def next(self, **fields: Any) -> dict[str, Any]:
        """Wait for a message; return what tells it from others."""
        event = await self._client.event("message", channel=self.name, **fields)
        return {field: event[field] for field in ("kind", "size", "sha256")}

    async def comes_back(self, kind: str, size: int, fill: int = 0) -> None:
        await self.send(kind, size, fill)
        assert await self.next() == seen(message(kind, size, fill))

    async def text_comes_back(self, text: str) -> None:
        await self._client.do("send", channel=self.name, kind="text", text=text)
        assert await self.next() == seen(text)

    async def close(self) -> None:
        await self._client.do("close", channel=self.name)

    async def closed(self) -> float:
        """Wait for the client to learn that it is closed; return when."""
        return float((await self._client.event("closed", channel=self.name))["at"])


class Call:
    """A call that is set up."""

    def __init__(self, place: Place, client: Client, http: aiohttp.ClientSession) -> None:
        self.client = client
        self._place, self._http, self._location = place, http, ""
        self._name = fresh("call")
        self.events = Channel(client, fresh("events"))
        self.most_bytes = 0  # of a message, that both sides take

    async def set_up(self, channels: Sequence[dict[str, Any]], *, events: bool) -> None:
        said, wanted = self._place.said, list(channels)
        if events:
            wanted.append({"channel": self.events.name, "label": "oai-events"})
        await self.client.do("offer", call=self._name, wav=str(said.wav), packets=str(said.packets), channels=wanted)
        offer = (await self.client.event("offer"))["sdp"]
        async with self._http.post(CALLS, data=offer, headers={"Content-Type": "application/sdp"}) as response:
            answer = await response.text()
            assert response.status == 201, answer
            self._location = response.headers["Location"]
        self.most_bytes = min(_most_bytes(offer), _most_bytes(answer))
        await self.client.do("answer", sdp=answer)
        await self.state("connected", _CONNECTED_WITHIN_S)
        if events:
            await self.events.opened()

    async def state(self, state: str, within_s: float | None = None) -> float:
        """Wait for the client to say that its connection is in this state; return when."""
        return float((await self.client.event("state", within_s, call=self._name, state=state))["at"])

    async def open(self, label: str = "data", **options: Any) -> Channel:
        channel = Channel(self.client, fresh(label))
        await self.client.do("open", channel=channel.name, label=label, **options)
        await channel.opened()
        return channel

    async def listen(self, seconds: float) -> Samples:
        """Return what the client hears from now on."""
        path = self._place.folder / fresh("heard")
        await self.client.do("listen", seconds=seconds, path=str(path))
        event = await self.client.event("audio", seconds + self.client.patience_s)
        return heard(path, event["form"])

    async def hang_up(self) -> None:
        """Our side ends it, by the API."""
        async with self._http.post(self._location + "/hangup") as response:
            assert response.status == 200, await response.text()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Sideband]:
        """A sideband at the call's owner: it ends with the call."""
        async with self._http.ws_connect(
            "/v1/realtime", params={"call_id": self._location.rsplit("/", 1)[-1]}
        ) as socket:
            yield socket


async def over(sideband: Sideband, within_s: float) -> float:
    """Wait for the fleet to learn that the call is over; return when."""
    async with asyncio.timeout(within_s):
        async for _ in sideband:
            pass
    return time.monotonic()


@contextlib.asynccontextmanager
async def calling(place: Place, client: Client, *channels: dict[str, Any], events: bool = True) -> AsyncIterator[Call]:
    """Place a call with these channels and one for events; hang up after it."""
    client.forget()
    async with place.http() as http:
        call = Call(place, client, http)
        try:
            try:
                await call.set_up(channels, events=events)
            except (AssertionError, TimeoutError) as problem:
                raise SetUpError(str(problem)) from problem
            yield call
        finally:
            with contextlib.suppress(ConnectionError):  # of a client that has crashed, which is said already
                await client.do("hang_up")


def _most_bytes(sdp: str) -> int:
    found = re.search(r"^a=max-message-size:(\d+)", sdp, re.MULTILINE)
    most = int(found[1]) if found else MOST_BY_DEFAULT
    return most or 1 << 62  # 0: any
