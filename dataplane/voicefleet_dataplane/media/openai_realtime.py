"""The Realtime API over WebSocket as an agent, with our side of what its WebRTC server does for a client.

Events pass through both ways. What makes the difference between WebSocket and WebRTC is done here: audio leaves as
`input_audio_buffer.append` and comes as deltas, which the client never sees; `output_audio_buffer.*` events come from our
playout clock; and when somebody interrupts (speech_started, or the client's `output_audio_buffer.clear`) the agent is told with
`conversation.item.truncate` how much was really heard of each item that was not heard to its end.

The session object that came with the call is set first, with our audio formats; the client's `session.created` shows it as
the agent took it.

Owns: that translation. Does not own: sockets, the voice, the meaning of any other event.
"""

import base64
import json
import secrets
from collections import deque
from typing import Any

from voicefleet_dataplane.media.agent import (
    LARGEST_NAME,
    Actions,
    AgentError,
    Clear,
    End,
    Forgive,
    Mark,
    Say,
    Send,
    Tell,
    build_json,
    parse_json_object,
)
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit, Ending, Message
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.media.forgiven import read_audio, read_event
from voicefleet_dataplane.media.realtime_profiles import DIALECTS, Dialect, Profile
from voicefleet_dataplane.media.realtime_session import find_object, settable, with_formats, wrong_format
from voicefleet_dataplane.media.realtime_speech import Heard, RealtimeSpeech
from voicefleet_dataplane.wire.rtp import RtpPacket

_UPDATES_REMEMBERED = 64
_END_OF = "end of "
_SESSION = "_session"


class OpenAIRealtime:
    """One session."""

    subprotocols: tuple[str, ...] = ()

    def __init__(self, config: CallConfig, profile: Profile = Profile.OPENAI, model: str = "") -> None:
        """``model``: as the resource's URL names it, for the dialect that wants it in words too."""
        self._model = model
        self._dialect: Dialect = DIALECTS[profile]
        self.rate = self._dialect.rate
        self._config = config
        self._speech = RealtimeSpeech(int(self.rate))
        self._updates: deque[bool] = deque(maxlen=_UPDATES_REMEMBERED)  # in flight: is it ours?
        self._created: dict[str, Any] | None = None  # held back until our update is answered
        self._ours = "vf_" + secrets.token_hex(4)  # the events that we send: a refusal of one is not the client's
        self._sent = 0
        ours = "" if self._dialect.commit_first else f'"event_id":"{self._ours}",'
        self._append = f'{{"type":"input_audio_buffer.append",{ours}"audio":"'
        self._interrupts = True
        self._playing = ""  # the response that the client was told about

    # ---- from the call

    def open(self) -> Actions:
        """Set the session."""
        session = settable(self._config.session)
        if self._dialect.nested_audio:
            session.setdefault("type", "realtime")
        if self._dialect.commit_first:
            update = build_json(type="session.update", model=self._model)
            return [Send(update), Send(build_json(type="input_audio_buffer.commit"))]
        self._updates.append(True)
        update = build_json(
            type="session.update", event_id=self._ours + _SESSION, session=with_formats(session, self._dialect)
        )
        return [Send(update)]

    def speech(self, pcm: bytes) -> list[Message]:
        """One event."""
        return [self._append + base64.b64encode(pcm).decode() + '"}']

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
                value["session"] = with_formats(settable(session), self._dialect)
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
        response = self._speech.response_of(tag)
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
        cut = self._speech.cut(cleared)
        response, self._playing = self._playing or (cut[0].response if cut else ""), ""
        return [*map(self._truncate, cut), self._buffer_event("cleared", response)] if cut else []

    def _truncate(self, heard: Heard) -> Send:
        self._sent += 1
        return Send(
            build_json(
                type="conversation.item.truncate",
                event_id=f"{self._ours}_{self._sent}",
                item_id=heard.item,
                content_index=heard.content_index,
                audio_end_ms=heard.heard_ms,
            )
        )

    def close(self, reason: str) -> Actions:
        """The protocol ends with its connection."""
        return [Send(build_json(type="input_audio_buffer.commit", final=True))] if self._dialect.commit_first else []

    # ---- from the agent

    def receive(self, message: Message) -> Actions:
        """An event of the server."""
        event, text, forgiven = read_event(message)
        return [*forgiven, *self._receive(event, text)]

    def _receive(self, event: dict[str, Any], text: str) -> Actions:
        kind = event.get("type")
        if not isinstance(kind, str):
            raise AgentError("an event without its 'type'")
        if kind == self._dialect.audio_delta:
            return self._audio(event)
        if kind == self._dialect.audio_done:
            response, item = _name(event, "response_id"), str(event.get("item_id", ""))
            told = list(map(self._truncate, self._speech.finish(item=item)))
            return [*told, *([] if self._speech.is_cut(item) else [Mark(_END_OF + response)]), Tell(text)]
        if kind in ("response.created", "response.done"):
            response = str(find_object(event, "response").get("id", ""))[:LARGEST_NAME]
            if kind == "response.created":
                self._speech.begin_response(response)
                return [Tell(text)]
            return [*map(self._truncate, self._speech.finish(response=response)), Tell(text)]
        if kind == "session.created":
            self._note_session(event)
            if self._updates and self._updates[0]:
                self._created = event  # shown when it is what the caller asked for
                return []
        elif kind == "session.updated":
            return self._updated(event, text)
        elif kind == "error":
            return self._error(event, text)
        elif kind == "input_audio_buffer.speech_started" and self._interrupts:
            return [Tell(text), Clear()]
        for theirs, ours, field in self._dialect.renamed:
            if kind == theirs:
                return [Tell(self._transcript(event, ours, field))]
        return [Tell(text)]

    def _audio(self, event: dict[str, Any]) -> Actions:
        item, response, index = _name(event, "item_id"), _name(event, "response_id"), event.get("content_index", 0)
        audio, forgiven = read_audio(_text(event, "delta"), f"{event['type']}.delta")
        if len(audio) % 2:
            forgiven.append(Forgive(f"{event['type']}.delta ends in half of a sample: {len(audio)} bytes"))
        pcm = self._speech.take(item, response, index if isinstance(index, int) else 0, audio)
        return [*forgiven, *([Say(pcm, item)] if pcm else [])]

    def _updated(self, event: dict[str, Any], text: str) -> Actions:
        self._note_session(event)
        wrong = wrong_format(event, self._dialect)
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
        if not isinstance(about, str) or not about.startswith(self._ours):
            return [Tell(text)]
        forgiven = Forgive(f"the agent refuses an event of ours: {json.dumps(error)[:200]}")
        if about != self._ours + _SESSION or not self._updates or not self._updates[0]:
            return [forgiven]
        # The session that came with the call: the client did not send the event, but it wants to know.
        self._updates.popleft()
        told: Actions = [forgiven]
        if self._created is not None:
            told.append(Tell(json.dumps(self._created, separators=(",", ":"))))
            self._created = None
        return [
            *told,
            Tell(
                json.dumps(event | {"error": {**find_object(event, "error"), "event_id": None}}, separators=(",", ":"))
            ),
        ]

    def _note_session(self, event: dict[str, Any]) -> None:
        session = event.get("session")
        if not isinstance(session, dict):
            return
        turns = find_object(find_object(session, "audio"), "input").get("turn_detection", session.get("turn_detection"))
        if isinstance(turns, dict):
            self._interrupts = turns.get("interrupt_response") is not False

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


def _text(event: dict[str, Any], field: str) -> str:
    value = event.get(field)
    if not isinstance(value, str):
        raise AgentError(f"{event['type']} without text in {field!r}")
    return value


def _name(event: dict[str, Any], field: str) -> str:
    """A name that we remember, and so no longer than names are."""
    value = _text(event, field)
    if len(value) > LARGEST_NAME:
        raise AgentError(f"{event['type']}.{field} has more than {LARGEST_NAME} characters")
    return value
