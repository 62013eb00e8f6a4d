"""How an agent is spoken to: a protocol core, which turns what happens in a call into messages and messages into actions.

::

    call  ── speech, digit, event, playing … ─▶ AgentProtocol ── Send ─▶ WebSocket
    call  ◀─ Say, Clear, Mark, Tell, End ──────  AgentProtocol ◀ receive ─ WebSocket

A core touches no socket and no clock. Its shell (shell/agents/backend.py) carries the actions out in their order, at once.

Owns: the actions and the shape of a core. Does not own: any dialect (media/openai_realtime.py, media_stream.py,
opus_stream.py).
Invariant: no message of an agent raises anything but AgentError, which says what is wrong with it.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_dataplane.media.backend import Cleared, Digit, Ending, Message, RateHz
from voicefleet_dataplane.wire.rtp import RtpPacket

MAX_MESSAGE_BYTES = 4 << 20  # a delta of 40 s of speech; agents that send more in one message are broken
LARGEST_NAME = 256  # characters of an id or a name that an agent makes up


class AgentError(ValueError):
    """An agent sent what its protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Send:
    """To the agent."""

    message: Message


@dataclass(frozen=True, slots=True)
class Say:
    """To the client, by the voice."""

    audio: bytes
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell me when all that was said so far has gone out."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Stop speaking; `cleared` follows at once."""


@dataclass(frozen=True, slots=True)
class Tell:
    """An event to the client and whoever watches."""

    event: str


@dataclass(frozen=True, slots=True)
class End:
    """Hang up when what was said so far has gone out."""

    ending: Ending
    detail: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """The agent did something amiss that costs nobody anything (media/forgiven.py): count it."""

    what: str


Action = Send | Say | Mark | Clear | Tell | End | Forgive
Actions = list[Action]


class AgentProtocol(Protocol):
    """One connection's dialect."""

    rate: RateHz
    subprotocols: tuple[str, ...]

    def open(self) -> Actions:
        """The connection is up; the first words."""

    def speech(self, pcm: bytes) -> list[Message]:
        """The client's next samples (not OPUS): the messages that carry them."""

    def packet(self, packet: RtpPacket) -> Message:
        """The client's next packet (OPUS only): the message that carries it."""

    def digit(self, digit: Digit) -> Actions:
        """The client pressed a key."""

    def event(self, event: str) -> Actions:
        """Client or watcher said something."""

    def receive(self, message: Message) -> Actions:
        """The agent said something. Raises AgentError."""

    def playing(self, tag: str) -> Actions:
        """The voice has begun with this tag."""

    def marked(self, name: str) -> Actions:
        """The voice has come to this mark."""

    def cleared(self, cleared: Cleared, *, was_speaking: bool) -> Actions:
        """The voice was stopped: how far it had come."""

    def close(self, reason: str) -> Actions:
        """The call is over; the last words."""


def parse_json_object(message: Message) -> dict[str, Any]:
    """Return the object in a text message. Raises AgentError."""
    if not isinstance(message, str):
        raise AgentError("a binary message where JSON text belongs")
    try:
        value = parse_json(message, MAX_MESSAGE_BYTES)
    except JsonError as error:
        raise AgentError(f"not JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise AgentError("JSON, but no object")
    return value


def build_json(**fields: Any) -> str:
    """Return compact JSON."""
    return json.dumps(fields, separators=(",", ":"))
