"""RTVI in the data channel `chat`: what Pipecat's client libraries speak there, beside the events that every call has.

::

    client's chat ──▶ Rtvi.hear ──▶ EventHub ──▶ backend      (text to say, function results)
                                └─▶ digits, hang-up
    client's chat ◀── Rtvi.on_event ◀── EventHub ◀── backend  (who speaks, transcripts, function calls)

The client waits for `bot-ready` before it calls itself connected, sends `ping: MILLISECONDS` each second, to which nothing is
answered (their server notes it; we have ICE consent), and redials a call that ends without `peerLeft`.

Owns: the translation. Does not own: events (media/events.py), when a call ends.
Invariant: no message of the client ends its call, but the one that asks for it.
"""

import json
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_dataplane.media.backend import Channel, Digit, Message

CHAT_LABEL = "chat"
LABEL = "rtvi-ai"
VERSION = "2.0.0"  # of the protocol: the one that the messages below have
DIGIT_MS = 100
_MAX_DIGITS = 32
_DIGITS = frozenset("0123456789*#")
_NO_ARGUMENTS = "{}"

# Events of the Realtime API that need no more than another name.
_PLAIN = {
    "input_audio_buffer.speech_started": ("user-started-speaking",),
    "input_audio_buffer.speech_stopped": ("user-stopped-speaking",),
    "response.created": ("bot-llm-started",),
    "response.done": ("bot-llm-stopped",),
    "output_audio_buffer.started": ("bot-tts-started", "bot-started-speaking"),
    "output_audio_buffer.stopped": ("bot-tts-stopped", "bot-stopped-speaking"),
    "output_audio_buffer.cleared": ("bot-tts-stopped", "bot-stopped-speaking"),
}


class Room(Protocol):
    """What a client may do to its call."""

    def hear(self, event: str) -> None:
        """Say something to the backend."""

    def press(self, digit: Digit) -> None:
        """Press a key."""

    def leave(self) -> None:
        """End the call."""


class Rtvi:
    """One client's channel; a watcher of its call's events. ``now`` gives the time as ISO 8601."""

    def __init__(self, channel: Channel, room: Room, now: Callable[[], str]) -> None:
        self._channel, self._room, self._now = channel, room, now

    # ---- the client

    def on_message(self, message: Message) -> None:
        """Hear a message of the client."""
        if not isinstance(message, str) or message.startswith("ping"):
            return
        try:
            said = parse_json(message, MAX_EVENT_BYTES)
        except JsonError:
            said = None
        if not isinstance(said, dict):
            self._say("error", {"error": "a message is a JSON object", "fatal": False})
        elif said.get("label") == LABEL:  # else signalling: which of its tracks are on, and that is seen in the media
            self._do(str(said.get("type")), said.get("data"), said.get("id"))

    def _do(self, kind: str, data: Any, number: Any) -> None:
        fields: dict[str, Any] = data if isinstance(data, dict) else {}
        match kind:
            case "client-ready":
                self._say("bot-ready", {"version": VERSION, "about": {"library": "voicefleet"}}, number)
            case "disconnect-bot":
                self._room.leave()
            case "send-text" if isinstance(fields.get("content"), str):
                part = {"type": "input_text", "text": fields["content"]}
                self._add({"type": "message", "role": "user", "content": [part]})
                options = fields.get("options")
                if not isinstance(options, dict) or options.get("run_immediately", True) is not False:
                    self._room.hear(json.dumps({"type": "response.create"}))
            case "llm-function-call-result" if isinstance(fields.get("tool_call_id"), str):
                output = json.dumps(fields.get("result"))
                self._add({"type": "function_call_output", "call_id": fields["tool_call_id"], "output": output})
                self._room.hear(json.dumps({"type": "response.create"}))
            case "dtmf":
                buttons = fields.get("buttons", [fields.get("button")])
                for button in buttons[:_MAX_DIGITS] if isinstance(buttons, list) else ():
                    if isinstance(button, str) and button in _DIGITS:
                        self._room.press(Digit(button, DIGIT_MS))
            case _:
                error = f"the agent behind this transport does not take {kind[:64]!r}"
                self._say("error-response", {"error": error}, number)

    def _add(self, item: dict[str, Any]) -> None:
        self._room.hear(json.dumps({"type": "conversation.item.create", "item": item}))

    # ---- the backend

    def on_event(self, event: str) -> bool:
        """Tell the client what an event means in its words; nothing for most."""
        try:
            said = parse_json(event, len(event))
        except JsonError:
            return True
        if isinstance(said, dict):
            self._tell(str(said.get("type")), said)
        return True

    def _tell(self, kind: str, said: dict[str, Any]) -> None:
        for name in _PLAIN.get(kind, ()):
            self._say(name, {})
        match kind:
            case "conversation.item.input_audio_transcription.completed":
                heard = {"text": said.get("transcript", ""), "final": True, "timestamp": self._now(), "user_id": ""}
                self._say("user-transcription", heard)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                self._say("bot-llm-text", {"text": said.get("delta", "")})
            case "response.output_audio_transcript.done":
                text = said.get("transcript", "")
                output = {"text": text, "aggregated_by": "sentence", "will_be_spoken": True, "spoken_status": "new"}
                self._say("bot-output", output)
                self._say("bot-transcription", {"text": text})
            case "response.output_item.done":
                self._tell_item(said.get("item"))
            case "error":
                error = said.get("error")
                text = error.get("message", "") if isinstance(error, dict) else ""
                self._say("error", {"error": text, "message": text, "fatal": False})

    def _tell_item(self, item: Any) -> None:
        if not isinstance(item, dict) or item.get("type") != "function_call":
            return
        try:
            given = item.get("arguments") or _NO_ARGUMENTS
            arguments = parse_json(given, MAX_EVENT_BYTES) if isinstance(given, str) else {}
        except JsonError:
            arguments = {}
        call = {"function_name": item.get("name", ""), "tool_call_id": item.get("call_id", ""), "arguments": arguments}
        self._say("llm-function-call-in-progress", call)

    def on_closed(self) -> None:
        """The call is over: there is nobody to tell."""

    def say_goodbye(self) -> None:
        """The call ends by our will: or the client would dial again."""
        self._channel.send(json.dumps({"type": "signalling", "message": {"type": "peerLeft"}}))

    def _say(self, kind: str, data: dict[str, Any], number: Any = None) -> None:
        name = number if isinstance(number, str) and number else secrets.token_hex(4)
        self._channel.send(json.dumps({"label": LABEL, "id": name, "type": kind, "data": data}))
