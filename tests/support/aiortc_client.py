"""A stock aiortc client that speaks a tone of its own and listens for what comes back."""

import asyncio
import fractions
from collections.abc import Awaitable, Callable

import aioice.ice
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy
from av import AudioFrame

RATE = 48_000
FRAME = 960


def use_loopback(monkeypatch) -> None:
    """Let aioice gather 127.0.0.1, which it leaves out otherwise: tests stay on loopback."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])


class Tone(MediaStreamTrack):
    """A sine wave in real time, 20 ms a frame."""

    kind = "audio"

    def __init__(self, frequency_hz: float) -> None:
        super().__init__()
        self.frequency_hz = frequency_hz
        self.position = 0
        self.started_at: float | None = None

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        if self.started_at is None:
            self.started_at = loop.time()
        await asyncio.sleep(max(0.0, self.started_at + self.position / RATE - loop.time()))
        time = np.arange(self.position, self.position + FRAME) / RATE
        samples = (12_000 * np.sin(2 * np.pi * self.frequency_hz * time)).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self.position
        frame.time_base = fractions.Fraction(1, RATE)
        self.position += FRAME
        return frame


class AiortcClient:
    """One call: `connect` with somebody who turns an offer into an answer."""

    def __init__(self, frequency_hz: float = 440.0) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.tone = Tone(frequency_hz)
        self.pc.addTrack(self.tone)
        self.channel = self.pc.createDataChannel("oai-events")
        self.opened = asyncio.Event()
        self.messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.samples: list[np.ndarray] = []
        self.heard: asyncio.Condition = asyncio.Condition()
        self.closed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.channel.on("open", self.opened.set)
        self.channel.on("message", self.messages.put_nowait)
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)

    async def connect(self, exchange: Callable[[str], Awaitable[str]]) -> None:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        answer = await exchange(self.pc.localDescription.sdp)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def say(self, message: str | bytes) -> str | bytes:
        """Send a message when the channel is open, and wait for the next one."""
        await asyncio.wait_for(self.opened.wait(), 20)
        self.channel.send(message)
        return await asyncio.wait_for(self.messages.get(), 20)

    async def hear(self, seconds: float, timeout_s: float = 30.0) -> None:
        """Wait until so much audio has come."""
        async with asyncio.timeout(timeout_s), self.heard:
            await self.heard.wait_for(lambda: sum(map(len, self.samples)) >= seconds * RATE)

    def heard_frequency_hz(self) -> float:
        """The loudest frequency of the last half second."""
        audio = np.concatenate(self.samples)[-RATE // 2 :].astype(float)
        assert np.abs(audio).max() > 1_000, "silence"
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
        return float(np.fft.rfftfreq(len(audio), 1 / RATE)[spectrum.argmax()])

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        await self.pc.close()

    def _on_track(self, track) -> None:
        self._pump = asyncio.ensure_future(self._listen(track))

    async def _listen(self, track) -> None:
        while True:
            frame = await track.recv()
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
            async with self.heard:
                self.samples.append(samples)
                self.heard.notify_all()

    def _on_state(self) -> None:
        if self.pc.connectionState in ("closed", "failed"):
            self.closed.set()
