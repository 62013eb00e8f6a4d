"""A client that holds a conversation, with a WebRTC stack that is not ours: speaks when told to, hears, and reads the events.

Stock aiortc, as anybody would use it (as shell/client/aiortc_caller.py): the microphone is silent until something is to be said, and what comes
back is kept.

Owns: one call's microphone, loudspeaker and event channel. Does not own: what is said (commands/ask.py), signalling (caller.py).
"""

import asyncio
import contextlib
import fractions
import json
import time
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy

from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_contract.outside import parse_json
from voicefleet_dataplane.media.event_channels import EVENTS_LABEL
from voicefleet_dataplane.media.speech import FRAME, RATE, Samples, join, mono
from voicefleet_dataplane.shell.client.packet_caller import SETUP_TIMEOUT_S, CallError, hang_up, post_offer

_LOUD = 300  # of 32,767: codecs make less than this of silence


class _Microphone(MediaStreamTrack):
    """Silence in real time, and what is queued."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._queue: list[Samples] = []
        self._position = 0
        self._started_at: float | None = None
        self._said: asyncio.Event = asyncio.Event()

    async def say(self, samples: Samples) -> None:
        """Queue samples, and wait until they have gone out."""
        padded = np.append(samples, np.zeros(-len(samples) % FRAME, np.int16))
        self._said.clear()
        self._queue += [padded[at : at + FRAME] for at in range(0, len(padded), FRAME)]
        await self._said.wait()

    async def recv(self) -> av.AudioFrame:
        """Return the next 20 ms when they are due."""
        now = time.monotonic()
        if self._started_at is None:
            self._started_at = now
        await asyncio.sleep(self._started_at + self._position / RATE - now)
        part = self._queue.pop(0) if self._queue else np.zeros(FRAME, np.int16)
        if not self._queue:
            self._said.set()
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += FRAME
        return frame


class Talker:
    """One call: `async with Talker(http, url, headers) as talker`. Raises CallError, httpx.HTTPError when it does not come up."""

    def __init__(self, http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> None:
        self._http, self._url, self._headers = http, url, headers
        self._location = ""
        self._microphone = _Microphone()
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._connection.addTrack(self._microphone)  # first: aiortc puts its section first, and bundles into it
        self._channel = self._connection.createDataChannel(EVENTS_LABEL)
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._heard: list[Samples] = []
        self.events: list[dict[str, Any]] = []
        self.first_loud_at = 0.0  # when something was heard, since the last time somebody set this to 0
        self.is_closed = False

    @property
    def call_id(self) -> str:
        """Which call it is."""
        return self._location.rsplit("/", 1)[-1]

    async def __aenter__(self) -> Self:
        connection = self._connection
        connection.on("track", self._on_track)
        connection.on("connectionstatechange", self._on_state)
        self._channel.on("message", self._on_message)
        try:
            await connection.setLocalDescription(await connection.createOffer())
            self._location, answer = await post_offer(
                self._http, self._url, self._headers, connection.localDescription.sdp
            )
            await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await self.until(lambda: self._channel.readyState == "open", SETUP_TIMEOUT_S)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.cancel()
        with contextlib.suppress(httpx.HTTPError):
            await hang_up(self._http, self._url, self._headers, self._location)
        await self._connection.close()

    # ---- what it does

    async def say(self, samples: Samples) -> float:
        """Speak (48 kHz), to the end; gives when that was."""
        await self._microphone.say(samples)
        return time.monotonic()

    def send(self, event_type: str, **fields: Any) -> None:
        """Send an event."""
        self._channel.send(json.dumps({"type": event_type, **fields}))

    # ---- what it hears

    async def until(self, condition: Any, within_s: float = 30.0) -> None:
        """Wait for events or audio that make ``condition()`` true. Raises TimeoutError, CallError when the call ends before."""
        async with asyncio.timeout(within_s):
            while not condition():
                if self.is_closed:
                    raise CallError("the call has ended")
                self._changed.clear()
                with contextlib.suppress(TimeoutError):  # the channel's state tells nobody
                    await asyncio.wait_for(self._changed.wait(), 0.1)

    def told(self, event_type: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [event for event in self.events if event.get("type") == event_type]

    async def event(self, event_type: str, count: int = 1, within_s: float = 30.0) -> dict[str, Any]:
        """Wait for the count-th event of a type."""
        await self.until(lambda: len(self.told(event_type)) >= count, within_s)
        return self.told(event_type)[count - 1]

    def heard(self, after: int = 0) -> Samples:
        """Return what was heard, from a sample on."""
        return join(self._heard)[after:]

    # ---- inside

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._listening = asyncio.ensure_future(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                samples = mono(frame)
                self._heard.append(samples)
                if not self.first_loud_at and int(np.abs(samples.astype(np.int32)).max()) > _LOUD:
                    self.first_loud_at = time.monotonic()
                self._changed.set()

    def _on_message(self, message: object) -> None:
        if isinstance(message, str):
            self.events.append(parse_json(message, 4 * MAX_EVENT_BYTES))
            self._changed.set()

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.is_closed = True
            self._changed.set()
