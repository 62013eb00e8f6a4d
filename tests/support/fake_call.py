"""A call without a wire: the real voice, clock, codec thread and events around a backend, on a real loop."""

import asyncio
import json
from collections.abc import Callable

import numpy as np

from tests.support.voice_world import Speaker, World
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.media.backend import Backend, CallConfig, Ending, RateHz
from voicefleet_dataplane.media.opus import OpusDecoder
from voicefleet_dataplane.media.voice import CallVoice
from voicefleet_dataplane.shell.process.codec_thread import CodecThread
from voicefleet_dataplane.shell.process.playout_clock import PlayoutClock
from voicefleet_dataplane.shell.transceiver.backends import Backends


class FakeCall:
    """Makes its backend by real settings."""

    def __init__(self, config: CallConfig | None = None, **settings) -> None:
        self.config = config or CallConfig("call_1", "acme", {"instructions": "be brief"})
        self.codec, self.clock = CodecThread(), PlayoutClock()
        self.events: list[dict] = []
        self.sent: list[tuple[int, int, bytes]] = []
        self.ended: tuple[Ending, str] | None = None
        self.is_behind = False
        self.voice: CallVoice | None = None
        self._changed = asyncio.Event()
        self.backends = Backends(
            TransceiverSettings(
                cluster_id=1,
                slot=1,
                generation=1,
                inner_address="127.0.0.1",
                port=0,
                **{"backend_network": "Loopback"} | settings,
            )
        )
        self.backend: Backend

    @property
    def call_id(self) -> str:
        return self.config.call_id

    async def __aenter__(self):
        self.backend = self.backends.make(self)
        self.backend.on_connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.ended is None:
            self._close()
        await self.backends.close()
        self.clock.close()
        self.codec.close()

    def _close(self) -> None:
        if self.voice is not None:
            self.voice.close()
        self.backend.on_ended()

    # ---- Call

    def open_voice(self, rate: RateHz, listener, hear: RateHz | None = None) -> CallVoice:
        self.rate = rate
        self.voice = CallVoice(rate, listener, self.send_audio, self.codec, self.clock, hear=hear)
        return self.voice

    def send_audio(self, payload, sequence, timestamp, *, marker=False) -> bool:
        self.sent.append((sequence, timestamp, payload))
        self._changed.set()
        return True

    def send_event(self, event: str) -> bool:
        self.events.append(json.loads(event))
        self._changed.set()
        return True

    def hang_up(self, ending: Ending = Ending.HANG_UP, detail: str = "") -> None:
        if self.ended is None:
            self.ended = (ending, detail)
            self._close()
            self._changed.set()

    # ---- the client

    async def speak(self, samples: np.ndarray, **options) -> list[bytes]:
        """As fast as the codec takes it: the network has no clock here. Gives the payloads."""
        packets = Speaker(World(), samples, **options).packets
        for packet in packets:
            if self.voice.wants_packets:
                self.voice.receive(packet)
            else:
                self.backend.on_audio(packet)
            while self.voice._decoding > 20:
                await asyncio.sleep(0.001)
            if packet.sequence % 20 == 0:
                await asyncio.sleep(0.001)
        return [packet.payload for packet in packets]

    def say_event(self, **event) -> None:
        self.backend.on_event(json.dumps(event))

    # ---- what the test looks at

    async def until(self, condition: Callable[[], object], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def told(self, kind: str) -> list[dict]:
        return [event for event in self.events if event["type"] == kind]

    def errors(self) -> list[str]:
        return [event["error"]["code"] for event in self.told("error")]

    def heard_samples(self) -> np.ndarray:
        decoder = OpusDecoder(self.rate or 48_000)
        return np.frombuffer(b"".join(decoder.decode(payload) for *_, payload in self.sent), np.int16)
