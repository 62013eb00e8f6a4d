"""What stands behind a call: the seam between the wire and an agent.

A Backend is made for each call and told what the client says; it answers through the Call that it was given. All of it
happens on the event loop of the transceiver, so nothing here may block: a backend with work to do hands it elsewhere.

A backend takes audio in the form that it asks for. It gets the client's packets as they come (`on_audio`) until it opens a
voice (`Call.open_voice`): from then on the client is heard as PCM without gaps, in `VoiceListener.on_speech`, and PCM that
the backend says is paced, coded and sent by our playout clock. With `RateHz.OPUS` a voice codes nothing: packets in by
`on_audio`, Opus frames out by `say`, and the clock is ours all the same.

Events are JSON text, as clients write them into their data channel for events. `send_event` reaches that channel and
whoever else watches the call (media/events.py); `on_event` tells what any of them said.

Owns the protocols. Does not own transport, codecs or time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from voicefleet_dataplane.wire.rtp import RtpPacket

Message = str | bytes


class Ending(StrEnum):
    """Why a backend ends a call; core.call.model.EndReason has the same names."""

    HANG_UP = "hang_up"  # it has said what it had to say
    BACKEND_CLOSED = "backend_closed"  # what stands behind it went away without a word
    BACKEND_FAILED = "backend_failed"  # it is not there, or does what its protocol does not allow


class RateHz(IntEnum):
    """Samples a second of a voice. PCM is 16 bit, little endian, mono."""

    OPUS = 0  # no samples: frames of Opus, 20 ms each, as they are
    NARROW = 8_000
    WIDE = 16_000
    REALTIME = 24_000
    FULL = 48_000


@dataclass(frozen=True, slots=True)
class CallConfig:
    """What came with a call. `session` is the session object of the Realtime API, from the request or the ephemeral key."""

    call_id: str
    tenant: str = ""
    session: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str = ""  # W3C: what the backend's request belongs to
    chat: str = ""  # what the data channel `chat` speaks, if it is not the backend's (media/rtvi.py)


@dataclass(frozen=True, slots=True)
class Digit:
    """A key that the client pressed: 0-9, *, #, A-D."""

    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a clear cut off: how much of `tag` was played, and the marks that will not be reached by playing.

    `cut` are all the tags of which something will not be heard, in their order, with how much of each was.
    """

    tag: str
    played_ms: int
    marks: tuple[str, ...]
    cut: tuple[tuple[str, int], ...] = ()


class Channel(Protocol):
    """One data channel."""

    @property
    def label(self) -> str:
        """The name that its opener gave it."""

    @property
    def takes_bytes(self) -> int:
        """How long a message the client takes; 0: any."""

    def send(self, message: Message) -> bool:
        """Send text or bytes; False if the channel is closed, the message too long, or too much waits for the client."""


class VoiceListener(Protocol):
    """What a voice tells its backend."""

    def on_speech(self, pcm: bytes) -> None:
        """The client's next samples, a whole number of 20 ms frames: loss concealed, silence filled in."""

    def on_playing(self, tag: str) -> None:
        """The first frame of what was said under this tag has gone out."""

    def on_mark(self, name: str) -> None:
        """All that was said before this mark has gone out."""

    def on_silent(self) -> None:
        """Everything that was said has gone out; the voice is silent from now on."""


class Voice(Protocol):
    """The backend's way to speak, on our playout clock."""

    def say(self, audio: bytes, tag: str = "") -> bool:
        """Queue PCM of any length, or one Opus frame. False if the queue is full: nothing of it was taken."""

    def mark(self, name: str) -> bool:
        """Ask to be told when all that was said so far has gone out; False if too many marks wait."""

    def clear(self) -> Cleared:
        """Stop at once (barge-in): no frame of what was said so far goes out after this."""

    @property
    def queued_ms(self) -> int:
        """How much waits to be played."""

    @property
    def is_full(self) -> bool:
        """Whoever brings audio should stop for a while."""

    def played_ms(self, tag: str) -> int:
        """How much of what was said under the tag has gone out; of the last few tags."""


class Call(Protocol):
    """What a backend may do."""

    @property
    def call_id(self) -> str:
        """Which call it is."""

    @property
    def config(self) -> CallConfig:
        """What came with it."""

    def open_voice(self, rate: RateHz, listener: VoiceListener, hear: RateHz | None = None) -> Voice:
        """Speak in PCM of this rate from now on, and hear in it or in ``hear``; once, before `on_connected` returns."""

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet. Sequence (mod 2^16) and timestamp (48 kHz, mod 2^32) are the backend's own numbering."""

    def send_event(self, event: str) -> bool:
        """Send JSON to the client's channel for events and to whoever watches; False if it could not even be queued."""

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the client's data channels that whoever speaks to it should wait."""

    def hang_up(self, ending: Ending = Ending.HANG_UP, detail: str = "") -> None:
        """End the call; `detail` is for logs and the call's record."""


class Backend:
    """What a backend is told. This one does nothing with any of it."""

    takes_channels = False  # other data channels than the events': else the first of another name is adopted for events

    def on_connected(self) -> None:
        """The client can be heard and spoken to."""

    def on_audio(self, packet: RtpPacket) -> None:
        """One audio packet of the client, in the order of arrival; not while a PCM voice is open."""

    def on_digit(self, digit: Digit) -> None:
        """The client pressed a key."""

    def on_event(self, event: str) -> None:
        """JSON of the client, or of whoever attached to the call; at most MAX_EVENT_BYTES, not looked at."""

    def on_channel(self, channel: Channel) -> None:
        """The client opened a data channel other than its events'; only where `takes_channels`."""

    def on_data(self, channel: Channel, message: Message) -> None:
        """The client said something in it."""

    def on_ended(self) -> None:
        """The call is over; nothing can be sent any more."""


BackendFactory = Callable[[Call], Backend]
