"""Twilio's Media Streams protocol, from the side that places the call: an agent written for it works unchanged.

To the agent: `connected`, `start`, `media` (μ-law, 8 kHz, 20 ms), `dtmf`, `mark`, `stop`; from the agent: `media`, `mark`,
`clear`. Numbers are strings, as there. `clear` gives back the marks that were waiting.

The protocol has no words for the client's events: whoever sends some is told so. The session object travels as JSON in
`customParameters.session`.

Owns: the dialect. Does not own: sockets, the voice.
"""

import base64
import json
from typing import Any

from voicefleet_dataplane.media.agent import (
    LARGEST_NAME,
    Action,
    Actions,
    AgentError,
    Clear,
    Mark,
    Say,
    Send,
    Tell,
    build_json,
)
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit, Message, RateHz
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.media.forgiven import read_audio, read_event
from voicefleet_dataplane.media.mulaw import decode_mulaw, encode_mulaw
from voicefleet_dataplane.wire.opus import FRAME_MS
from voicefleet_dataplane.wire.rtp import RtpPacket

FRAME_BYTES = 160  # 20 ms of μ-law


class MediaStream:
    """One stream."""

    rate = RateHz.NARROW
    subprotocols: tuple[str, ...] = ()

    def __init__(self, config: CallConfig) -> None:
        self._config = config
        self._stream = "MZ" + config.call_id
        self._sequence = 0
        self._chunk = 0
        self._told_no_events = False

    def open(self) -> Actions:
        """Connected, then start."""
        config = self._config
        parameters = {"tenant": config.tenant} if config.tenant else {}
        if config.session:
            parameters["session"] = json.dumps(config.session, separators=(",", ":"))
        start = {
            "accountSid": config.tenant,
            "streamSid": self._stream,
            "callSid": config.call_id,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1},
            "customParameters": parameters,
        }
        return [
            Send(build_json(event="connected", protocol="Call", version="1.0.0")),
            self._send("start", start=start),
        ]

    def speech(self, pcm: bytes) -> list[Message]:
        """Frames of 20 ms."""
        codes = encode_mulaw(pcm)
        messages: list[Message] = []
        for start in range(0, len(codes), FRAME_BYTES):
            self._sequence += 1
            self._chunk += 1
            payload = base64.b64encode(codes[start : start + FRAME_BYTES]).decode()
            messages.append(
                f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
                f'"chunk":"{self._chunk}","timestamp":"{(self._chunk - 1) * FRAME_MS}","payload":"{payload}"}},'
                f'"streamSid":"{self._stream}"}}'
            )
        return messages

    def packet(self, packet: RtpPacket) -> Message:
        """Not asked: we want samples."""
        raise NotImplementedError

    def digit(self, digit: Digit) -> Actions:
        """A key."""
        return [self._send("dtmf", dtmf={"track": "inbound_track", "digit": digit.digit})]

    def event(self, event: str) -> Actions:
        """Nobody there would understand it."""
        if self._told_no_events:
            return []
        self._told_no_events = True
        return [
            Tell(build_error("events_unsupported", "this agent speaks the Media Streams protocol: it takes no events"))
        ]

    def receive(self, message: Message) -> Actions:
        """Media, mark, clear. What is unknown may be of a newer version: passed over."""
        event, _, forgiven = read_event(message)
        match event.get("event"):
            case "media":
                payload = _object(event, "media").get("payload")
                if not isinstance(payload, str):
                    raise AgentError("media.payload is not text")
                audio, more = read_audio(payload, "media.payload")
                return [*forgiven, *more, Say(decode_mulaw(audio))]
            case "mark":
                name = _object(event, "mark").get("name")
                if not isinstance(name, str) or len(name) > LARGEST_NAME:
                    raise AgentError(f"mark.name is not text of at most {LARGEST_NAME} characters")
                return [*forgiven, Mark(name)]
            case "clear":
                return [*forgiven, Clear()]
            case str():
                return [*forgiven]
            case _:
                raise AgentError("an event without its name: 'event' is missing")

    def playing(self, tag: str) -> Actions:
        """Nothing that the protocol speaks of."""
        return []

    def marked(self, name: str) -> Actions:
        """Give the mark back."""
        return [self._send("mark", mark={"name": name})]

    def cleared(self, cleared: Cleared, *, was_speaking: bool) -> Actions:
        """Give back the marks that waited."""
        return [action for name in cleared.marks for action in self.marked(name)]

    def close(self, reason: str) -> Actions:
        """Stop."""
        return [self._send("stop", stop={"accountSid": self._config.tenant, "callSid": self._config.call_id})]

    def _send(self, event: str, **fields: Any) -> Action:
        self._sequence += 1
        return Send(build_json(event=event, sequenceNumber=str(self._sequence), **fields, streamSid=self._stream))


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise AgentError(f"{event['event']!r} without its object {name!r}")
    return value
