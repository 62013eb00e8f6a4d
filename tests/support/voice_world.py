"""A voice in virtual time: a client behind a bad network, the playout clock, a codec that works when it is told to.

Everything is real but time, the thread and the network: jitter buffer, libopus, playout queue.
"""

import heapq
import random
from collections.abc import Callable
from functools import cache
from itertools import count

import numpy as np

from voicefleet_dataplane.media.backend import RateHz
from voicefleet_dataplane.media.opus import OpusDecoder, OpusEncoder
from voicefleet_dataplane.media.voice import CallVoice
from voicefleet_dataplane.wire.rtp import RtpPacket
from voicefleet_dataplane.wire.sdp.model import OpusWishes

FRAME_S = 0.02


@cache
def speech_like(seconds: float, rate: int, seed: int = 1) -> np.ndarray:
    """Samples that a speech codec takes for a voice: a gliding pitch through two moving formants, in syllables."""
    chance = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * rate)) / rate
    pitch = 110 + 30 * np.sin(2 * np.pi * 0.7 * time_s) + 8 * np.sin(2 * np.pi * 3.1 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    first, second = 500 + 200 * np.sin(2 * np.pi * 1.3 * time_s), 1_500 + 500 * np.sin(2 * np.pi * 0.9 * time_s + 1)
    voice = np.zeros_like(time_s)
    for harmonic in range(1, 25):
        frequency = harmonic * pitch
        gain = np.exp(-(((frequency - first) / 180) ** 2)) + 0.5 * np.exp(-(((frequency - second) / 250) ** 2))
        voice += (gain + 0.01) * np.sin(harmonic * phase + harmonic)
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * time_s + chance.uniform(0, 6)) + 0.6, 0, 1)
    voice *= syllables
    samples = (voice / np.abs(voice).max() * 12_000).astype(np.int16)
    samples.flags.writeable = False
    return samples


class InlineCodec:
    """Works at once, or when `run` says so."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[tuple[Callable, object, Callable]] = []

    def submit(self, work, on, done) -> None:
        self.waiting.append((work, on, done))
        if not self.held:
            self.run()

    def run(self) -> None:
        while self.waiting:
            work, on, done = self.waiting.pop(0)
            done(on, work(on))


class World:
    """One call's voice, and time."""

    def __init__(self, rate: RateHz = RateHz.WIDE, *, loss: float = 0.0, **wishes) -> None:
        self.time = 1_000.0
        self.rate = rate
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._ticks: dict[object, int] = {}
        self.codec = InlineCodec()
        self.heard: list[tuple[float, bytes]] = []
        self.sent: list[tuple[float, int, int, bytes, bool]] = []
        self.told: list[tuple] = []
        self.reported_loss = loss
        self.wishes = OpusWishes(**{"inband_fec": True} | wishes)
        self.voice = CallVoice(
            rate, self, self.send_audio, self.codec, self, lambda: self.reported_loss, wishes=lambda: self.wishes
        )

    # ---- Clock

    def now(self) -> float:
        return self.time

    def join(self, voice) -> None:
        self._ticks[voice] = self._ticks.get(voice, 0) + 1
        self._tick_later(voice, self._ticks[voice], self.time + FRAME_S)

    def leave(self, voice) -> None:
        self._ticks[voice] = self._ticks.get(voice, 0) + 1

    @property
    def pending(self) -> int:
        return len(self._events)

    def _tick_later(self, voice, number: int, at: float) -> None:
        def tick() -> None:
            if self._ticks.get(voice) == number:
                self._tick_later(voice, number, at + FRAME_S)
                voice.tick(self.time)

        self.at(at, tick)

    # ---- time

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def run(self, seconds: float) -> None:
        until = self.time + seconds
        while self._events and self._events[0][0] <= until:
            self.time, _, do = heapq.heappop(self._events)
            do()
        self.time = until

    # ---- the listener, and the wire

    def on_speech(self, pcm: bytes) -> None:
        self.heard.append((self.time, pcm))

    def on_playing(self, tag: str) -> None:
        self.told.append(("playing", tag))

    def on_mark(self, name: str) -> None:
        self.told.append(("mark", name))

    def on_silent(self) -> None:
        self.told.append(("silent",))

    def send_audio(self, payload, sequence, timestamp, *, marker=False) -> bool:
        self.sent.append((self.time, sequence, timestamp, payload, marker))
        return True

    # ---- measures

    def heard_samples(self) -> np.ndarray:
        return np.frombuffer(b"".join(pcm for _, pcm in self.heard), np.int16)

    def sent_samples(self) -> np.ndarray:
        """What a perfect client decodes: silence where time stamps leap."""
        decoder, parts = OpusDecoder(self.rate), []
        expected = None
        for _, _, timestamp, payload, _ in self.sent:
            if expected is not None and timestamp > expected:
                parts.append(np.zeros((timestamp - expected) * self.rate // 48_000, np.int16))
            parts.append(np.frombuffer(decoder.decode(payload), np.int16))
            expected = timestamp + 960
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


class Speaker:
    """A client that sends a recording through a network that loses, delays and reorders."""

    def __init__(
        self,
        world: World,
        samples: np.ndarray,
        *,
        rate: int = 48_000,
        loss: float = 0.0,
        jitter_s: float = 0.0,
        drift: float = 0.0,
        seed: int = 7,
        fec: bool = True,
        dtx: bool = False,
    ) -> None:
        chance = random.Random(seed)
        encoder = OpusEncoder(rate, bitrate=32_000, dtx=dtx, loss_percent=10 if fec else 0)
        frame = rate // 50
        self.packets = []
        self.lost = 0
        in_dtx = False
        for number in range(len(samples) // frame):
            payload = encoder.encode(samples[number * frame : (number + 1) * frame].tobytes())
            packet = RtpPacket(
                number == 0, 111, (65_500 + number) & 0xFFFF, (0xFFFFF000 + number * 960) & 0xFFFFFFFF, 77, payload
            )
            self.packets.append(packet)
            in_dtx, was_in_dtx = dtx and len(payload) <= 2, in_dtx
            if in_dtx and was_in_dtx:
                continue  # as browsers do: the first one is sent, and announces the silence
            if number and chance.random() < loss:
                self.lost += 1
                continue
            when = world.time + number * FRAME_S * (1 - drift) + chance.random() * jitter_s
            world.at(when, lambda packet=packet: world.voice.receive(packet))


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """The peak of the normalised cross-correlation, 0 to 1."""
    one, two = first.astype(float), second.astype(float)
    norm = np.linalg.norm(one) * np.linalg.norm(two)
    if not norm:
        return 0.0
    size = 1 << (len(one) + len(two)).bit_length()
    product = np.fft.rfft(one, size) * np.conj(np.fft.rfft(two, size))
    return float(np.abs(np.fft.irfft(product, size)).max() / norm)


def longest_gap_s(samples: np.ndarray, rate: int, threshold: int = 40) -> float:
    """The longest run of near-silence."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > threshold)
    if not len(loud):
        return len(samples) / rate
    edges = np.concatenate(([-1], loud, [len(samples)]))
    return float(np.diff(edges).max() - 1) / rate
