"""OpusStream, our own protocol for agents: Opus as the client sent it, JSON for everything else (docs/opus-stream.md).

     binary, to the agent:   sequence (2 bytes) | timestamp (4 bytes, 48 kHz) | Opus packet
     binary, from the agent: one Opus packet of 20 ms
     text, both ways:        {"type": …}

No sample is coded by us: a call costs what its packets cost. The agent hears loss and disorder as they are (the numbers in
front of each packet tell it), and speaks on our playout clock.

Owns: the dialect. Does not own: sockets, the voice.
"""

import json
import struct
from typing import Any

from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_dataplane.media.agent import (
    LARGEST_NAME,
    Action,
    Actions,
    AgentError,
    Clear,
    End,
    Mark,
    Say,
    Send,
    Tell,
    build_json,
    parse_json_object,
)
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit, Ending, Message, RateHz
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.wire.opus import FRAME_TICKS, LARGEST_FRAME_BYTES, parse_duration_ticks
from voicefleet_dataplane.wire.rtp import RtpPacket

VERSION = 1
SUBPROTOCOL = "opus-stream.voicefleet.v1"
HEADER = struct.Struct("!HI")
_TICKS_PER_MS = 48


class OpusStream:
    """One stream."""

    rate = RateHz.OPUS
    subprotocols: tuple[str, ...] = (SUBPROTOCOL,)

    def __init__(self, config: CallConfig) -> None:
        self._config = config
        self._tag = ""

    def open(self) -> Actions:
        """Who calls."""
        config = self._config
        return [
            _send("start", version=VERSION, call_id=config.call_id, tenant=config.tenant, session=dict(config.session))
        ]

    def speech(self, pcm: bytes) -> list[Message]:
        """Not asked: we want packets."""
        raise NotImplementedError

    def packet(self, packet: RtpPacket) -> Message:
        """The packet, with its numbers."""
        return HEADER.pack(packet.sequence, packet.timestamp) + packet.payload

    def digit(self, digit: Digit) -> Actions:
        """A key."""
        return [_send("digit", digit=digit.digit, duration_ms=digit.duration_ms)]

    def event(self, event: str) -> Actions:
        """As it is, inside ours."""
        try:
            value = parse_json(event, MAX_EVENT_BYTES)
        except JsonError:
            return [Tell(build_error("invalid_json", "an event is a JSON object"))]
        return [_send("event", event=value)]

    def receive(self, message: Message) -> Actions:
        """Audio, or one of our few words. What is unknown may be of a newer version: passed over."""
        if isinstance(message, bytes):
            ticks = parse_duration_ticks(message)
            if ticks != FRAME_TICKS or len(message) > LARGEST_FRAME_BYTES:
                what = "no Opus packet" if ticks is None else f"{ticks / _TICKS_PER_MS:g} ms"
                raise AgentError(f"a binary message is one Opus packet of 20 ms, and this one is {what}")
            return [Say(message, self._tag)]
        word = parse_json_object(message)
        match word.get("type"):
            case "tag":
                self._tag = _name(word, "tag")
                return []
            case "mark":
                return [Mark(_name(word, "name"))]
            case "clear":
                return [Clear()]
            case "event":
                event = word.get("event")
                if not isinstance(event, dict):
                    raise AgentError("event.event is not an object")
                return [Tell(json.dumps(event, separators=(",", ":")))]
            case "hang_up":
                return [End(Ending.HANG_UP, str(word.get("detail", ""))[:LARGEST_NAME])]
            case str():
                return []
            case _:
                raise AgentError("a message without its 'type'")

    def playing(self, tag: str) -> Actions:
        """The agent may want to show it."""
        return [_send("playing", tag=tag)]

    def marked(self, name: str) -> Actions:
        """Give the mark back."""
        return [_send("mark", name=name)]

    def cleared(self, cleared: Cleared, *, was_speaking: bool) -> Actions:
        """How much of what was heard."""
        return [_send("cleared", tag=cleared.tag, played_ms=cleared.played_ms, marks=list(cleared.marks))]

    def close(self, reason: str) -> Actions:
        """Why it ended."""
        return [_send("stop", reason=reason)]


def _send(kind: str, **fields: Any) -> Action:
    return Send(build_json(type=kind, **fields))


def _name(word: dict[str, Any], field: str) -> str:
    value = word.get(field)
    if not isinstance(value, str) or len(value) > LARGEST_NAME:
        raise AgentError(f"{word['type']}.{field} is not text of at most {LARGEST_NAME} characters")
    return value
