"""The Realtime API over WebSocket as an agent, with our side of what its WebRTC server does for a client.

Events pass through both ways. What makes the difference between WebSocket and WebRTC is done here: audio leaves as
`input_audio_buffer.append` and comes as deltas, which the client never sees; `output_audio_buffer.*` events come from our
playout clock; and when somebody interrupts (speech_started, or the client's `output_audio_buffer.clear`) the agent is told with
`conversation.item.truncate` how much was really heard.

The session object that came with the call is set first, with our audio formats; the client's `session.created` shows it as
the agent took it.

Owns: that translation. Does not own: sockets, the voice, the meaning of any other event.
"""

import base64
import json
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any

from voicefleet_contract.outside import OutsideError, decode_base64
from voicefleet_dataplane.media.agent import (
    MAX_MESSAGE_BYTES,
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
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit, Ending, Message
from voicefleet_dataplane.media.events import build_error
from voicefleet_dataplane.media.realtime_profiles import DIALECTS, Dialect, Profile
from voicefleet_dataplane.wire.rtp import RtpPacket

# Of a session object, whoever brings it: set by the server, or by the resource's URL, and by nobody else. Clients name the model that
# their package has as its default.
_NOT_OURS_TO_SET = frozenset(("id", "object", "expires_at", "client_secret", "model"))
_ITEMS_REMEMBERED = 64
_LARGEST_NAME = 256
_UPDATES_REMEMBERED = 64
_END_OF = "end of "


class OpenAIRealtime:
    """One session."""

    subprotocols: tuple[str, ...] = ()

    def __init__(self, config: CallConfig, profile: Profile = Profile.OPENAI, model: str = "") -> None:
        """``model``: as the resource's URL names it, for the dialect that wants it in words too."""
        self._model = model
        self._dialect: Dialect = DIALECTS[profile]
        self.rate = self._dialect.rate
        self._config = config
        self._response_of: dict[str, tuple[str, int]] = {}  # item → response, content index
        self._cut: deque[str] = deque(maxlen=_ITEMS_REMEMBERED)  # items that nobody wants to hear any more
        self._updates: deque[bool] = deque(maxlen=_UPDATES_REMEMBERED)  # in flight: is it ours?
        self._created: dict[str, Any] | None = None  # held back until our update is answered
        self._our_update_id = ""
        self._interrupts = True
        self._playing = ""  # the response that the client was told about

    # ---- from the call

    def open(self) -> Actions:
        """Set the session."""
        self._our_update_id = "event_" + secrets.token_hex(8)
        session = _settable(self._config.session)
        if self._dialect.nested_audio:
            session.setdefault("type", "realtime")
        if self._dialect.commit_first:
            update = build_json(type="session.update", model=self._model)
            return [Send(update), Send(build_json(type="input_audio_buffer.commit"))]
        self._updates.append(True)
        update = build_json(type="session.update", event_id=self._our_update_id, session=self._with_formats(session))
        return [Send(update)]

    def speech(self, pcm: bytes) -> list[Message]:
        """One event."""
        return [f'{{"type":"input_audio_buffer.append","audio":"{base64.b64encode(pcm).decode()}"}}']

    def packet(self, packet: RtpPacket) -> Message:
        """Not asked: we want samples."""
        raise NotImplementedError

    def digit(self, digit: Digit) -> Actions:
        """No client event has words for it: the one who handles the call is told, as in the API's own telephone calls."""
        return [
            Tell(
                build_json(
                    type="input_audio_buffer.dtmf_event_received",
                    event_id="event_" + secrets.token_hex(8),
                    event=digit.digit,
                )
            )
        ]

    def event(self, event: str) -> Actions:
        """The client's event, or a watcher's."""
        try:
            value = parse_json_object(event)
        except AgentError as error:
            return [Tell(build_error("invalid_json", f"an event is a JSON object: {error}"))]
        event_id = value.get("event_id") if isinstance(value.get("event_id"), str) else None
        match value.get("type"):
            case "session.update" if self._dialect.commit_first:
                return [Tell(build_error("unsupported_event", "this agent only transcribes: nothing can be set"))]
            case "session.update":
                session = value.get("session")
                if not isinstance(session, dict):
                    return [
                        Tell(
                            build_error("invalid_value", "session.update needs its object 'session'", event_id=event_id)
                        )
                    ]
                value["session"] = self._with_formats(_settable(session))
                self._updates.append(False)
                return [Send(json.dumps(value, separators=(",", ":")))]
            case "output_audio_buffer.clear":
                return [Clear()]
            case "input_audio_buffer.append":
                message = "audio comes over the call's audio track, not in events"
                return [Tell(build_error("unsupported_event", message, event_id=event_id))]
            case str():
                return [Send(event)]
            case _:
                return [Tell(build_error("missing_type", "an event needs its 'type'", event_id=event_id))]

    def playing(self, tag: str) -> Actions:
        """The first audio of a response."""
        response = self._response_of.get(tag, ("", 0))[0]
        if response == self._playing:
            return []
        self._playing = response
        return [self._buffer_event("started", response)]

    def marked(self, name: str) -> Actions:
        """A response's audio has gone out to its end."""
        response = name.removeprefix(_END_OF)
        if response != self._playing:
            return []
        self._playing = ""
        return [self._buffer_event("stopped", response)]

    def cleared(self, cleared: Cleared, *, was_speaking: bool) -> Actions:
        """Somebody interrupted: say how much was heard."""
        self._cut.extend(item for item in self._response_of if item not in self._cut)
        response, index = self._response_of.get(cleared.tag, ("", 0))
        self._playing = ""
        if not was_speaking or not response:
            return []
        truncate = build_json(
            type="conversation.item.truncate",
            event_id="event_" + secrets.token_hex(8),
            item_id=cleared.tag,
            content_index=index,
            audio_end_ms=cleared.played_ms,
        )
        return [Send(truncate), self._buffer_event("cleared", response)]

    def close(self, reason: str) -> Actions:
        """The protocol ends with its connection."""
        return [Send(build_json(type="input_audio_buffer.commit", final=True))] if self._dialect.commit_first else []

    # ---- from the agent

    def receive(self, message: Message) -> Actions:
        """An event of the server."""
        event = parse_json_object(message)
        kind = event.get("type")
        if not isinstance(kind, str):
            raise AgentError("an event without its 'type'")
        if kind == self._dialect.audio_delta:
            return self._audio(event)
        if kind == self._dialect.audio_done:
            response = _name(event, "response_id")
            return [Mark(_END_OF + response), Tell(str(message))]
        if kind == "session.created":
            self._note_session(event)
            if self._updates and self._updates[0]:
                self._created = event  # shown when it is what the caller asked for
                return []
        elif kind == "session.updated":
            return self._updated(event, str(message))
        elif kind == "error":
            return self._error(event, str(message))
        elif kind == "input_audio_buffer.speech_started" and self._interrupts:
            return [Tell(str(message)), Clear()]
        for theirs, ours, field in self._dialect.renamed:
            if kind == theirs:
                return [Tell(self._transcript(event, ours, field))]
        return [Tell(str(message))]

    def _audio(self, event: dict[str, Any]) -> Actions:
        item = _name(event, "item_id")
        if item in self._cut:
            return []
        if item not in self._response_of:
            if len(self._response_of) >= _ITEMS_REMEMBERED:
                del self._response_of[next(iter(self._response_of))]
            index = event.get("content_index", 0)
            self._response_of[item] = (_name(event, "response_id"), index if isinstance(index, int) else 0)
        try:
            audio = decode_base64(_text(event, "delta"), MAX_MESSAGE_BYTES)
        except OutsideError as error:
            raise AgentError(f"{event['type']}.delta is not base64: {error}") from None
        if len(audio) % 2:
            raise AgentError(f"{event['type']}.delta is not 16-bit PCM: {len(audio)} bytes")
        return [Say(audio, item)]

    def _updated(self, event: dict[str, Any], text: str) -> Actions:
        self._note_session(event)
        wrong = self._wrong_format(event)
        if wrong:
            return [Tell(text), End(Ending.BACKEND_FAILED, wrong)]
        ours = self._updates.popleft() if self._updates else False
        if not ours:
            return [Tell(text)]
        created, self._created = self._created, None
        if created is None:
            return []
        created["session"] = event.get("session", created.get("session"))
        return [Tell(json.dumps(created, separators=(",", ":")))]

    def _error(self, event: dict[str, Any], text: str) -> Actions:
        error = event.get("error")
        about = error.get("event_id") if isinstance(error, dict) else None
        told: Actions = []
        if about == self._our_update_id and self._updates and self._updates[0]:
            self._updates.popleft()
            if self._created is not None:
                told.append(Tell(json.dumps(self._created, separators=(",", ":"))))
                self._created = None
        return [*told, Tell(text)]

    def _note_session(self, event: dict[str, Any]) -> None:
        session = event.get("session")
        if not isinstance(session, dict):
            return
        turns = _object(_object(session, "audio"), "input").get("turn_detection", session.get("turn_detection"))
        if isinstance(turns, dict):
            self._interrupts = turns.get("interrupt_response") is not False

    def _wrong_format(self, event: dict[str, Any]) -> str:
        """What the agent made of our formats, if it is not what we said: samples of another rate are noise."""
        if not self._dialect.nested_audio:
            return ""
        audio = _object(_object(event, "session"), "audio")
        for way in ("input", "output"):
            found = _object(_object(audio, way), "format")
            if found and (found.get("type"), found.get("rate", self.rate)) != ("audio/pcm", self.rate):
                return f"the agent's {way} audio is {json.dumps(found)[:100]}, not audio/pcm at {int(self.rate)} Hz"
        return ""

    def _with_formats(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """The transceiver owns the audio: its format is ours, whatever a client asks for."""
        set_to = dict(session)
        if not self._dialect.nested_audio:
            return set_to | {"input_audio_format": "pcm16", "output_audio_format": "pcm16"}
        audio = dict(_object(session, "audio"))
        for way in ("input", "output"):
            audio[way] = dict(_object(audio, way)) | {"format": {"type": "audio/pcm", "rate": int(self.rate)}}
        set_to["audio"] = audio
        return set_to

    def _transcript(self, event: dict[str, Any], ours: str, field: str) -> str:
        text = event.get(field, "")
        return build_json(
            type=ours,
            event_id="event_" + secrets.token_hex(8),
            item_id=str(event.get("item_id", "item_" + self._config.call_id)),
            content_index=0,
            **{"delta" if ours.endswith("delta") else "transcript": text if isinstance(text, str) else ""},
        )

    def _buffer_event(self, what: str, response: str) -> Tell:
        return Tell(
            build_json(
                type=f"output_audio_buffer.{what}", event_id="event_" + secrets.token_hex(8), response_id=response
            )
        )


def _settable(session: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in session.items() if key not in _NOT_OURS_TO_SET}


def _text(event: dict[str, Any], field: str) -> str:
    value = event.get(field)
    if not isinstance(value, str):
        raise AgentError(f"{event['type']} without text in {field!r}")
    return value


def _name(event: dict[str, Any], field: str) -> str:
    """A name that we remember, and so no longer than names are."""
    value = _text(event, field)
    if len(value) > _LARGEST_NAME:
        raise AgentError(f"{event['type']}.{field} has more than {_LARGEST_NAME} characters")
    return value


def _object(value: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = value.get(field)
    return found if isinstance(found, dict) else {}
