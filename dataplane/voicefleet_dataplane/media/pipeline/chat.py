"""The text handler's dialect: Chat Completions, the one request that every language model's server takes.

A request is its JSON body; an answer is one JSON object, or chunks of a stream. Over HTTP chunks are server-sent events; over a
WebSocket each is a message that carries the request's `id`.

Owns: reading both shapes of an answer, bounds. Does not own: sockets (shell/pipeline/text_hook.py), what a conversation is.
Invariant: no bytes of a hook raise anything but HookError, which says what is wrong with them.
"""

from dataclasses import dataclass
from typing import Any

from voicefleet_contract.outside import JsonError, parse_json

MAX_ANSWER_BYTES = 1 << 20  # of one answer, with all of its wrapping
MAX_CALLS = 32
_LARGEST_NAME = 256


class HookError(ValueError):
    """A hook sent what is no answer."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of what to say."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a function call. The name and the id come with the first."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete."""

    hang_up: bool = False


Piece = TextDelta | CallDelta | Finished


class EventStream:
    """Server-sent events as bytes come: gives their `data`."""

    def __init__(self) -> None:
        self._line = bytearray()  # which has no end yet
        self._data: list[str] = []
        self._bytes = 0

    def push(self, chunk: bytes) -> list[str]:
        """Return the events that are complete. Raises HookError past the bound."""
        self._bytes += len(chunk)
        if self._bytes > MAX_ANSWER_BYTES:
            raise HookError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        events = []
        *ends, rest = chunk.split(b"\n")
        for end in ends:  # what came before is looked at once, when its line is whole
            self._line += end
            event = self._take(bytes(self._line.removesuffix(b"\r")))
            self._line.clear()
            if event is not None:
                events.append(event)
        self._line += rest
        return events

    def _take(self, line: bytes) -> str | None:
        """Take a line; return the event that it ends."""
        if line.startswith(b"data:"):
            self._data.append(line[5:].lstrip().decode(errors="replace"))
        if line or not self._data:
            return None
        event, self._data = "\n".join(self._data), []
        return event


def parse_answer(body: str | bytes) -> list[Piece]:
    """Return the pieces of an answer that came whole. Raises HookError."""
    return _answer(_object(body))


def _answer(value: dict[str, Any]) -> list[Piece]:
    _raise_error(value)
    choice = _choice(value)
    message = choice.get("message") if choice is not None else None
    if not isinstance(message, dict):
        raise HookError("an answer without choices[0].message")
    pieces = _pieces(message)
    if not pieces and not _hangs_up(value):
        raise HookError("choices[0].message has neither content nor tool_calls")
    return [*pieces, Finished(_hangs_up(value))]


def parse_chunk(data: str | bytes) -> list[Piece]:
    """Return the pieces of one chunk of a stream. Raises HookError."""
    if data in ("[DONE]", b"[DONE]"):
        return [Finished()]
    return _chunk(_object(data))


def _chunk(value: dict[str, Any]) -> list[Piece]:
    _raise_error(value)
    choice = _choice(value)
    if choice is None:  # usage comes so, after the last one
        return [Finished(hang_up=True)] if _hangs_up(value) else []
    delta = choice.get("delta")
    pieces = _pieces(delta) if isinstance(delta, dict) else []
    if choice.get("finish_reason") is not None or _hangs_up(value):
        pieces.append(Finished(_hangs_up(value)))
    return pieces


def parse_message(message: str | bytes) -> tuple[str, list[Piece]]:
    """Return the turn and the pieces of a WebSocket message: a chunk, or a whole answer. Raises HookError."""
    value = _object(message)
    turn = value.get("id")
    if not isinstance(turn, str):
        raise HookError("a message without the 'id' of the request")
    choice = _choice(value)
    return turn, _answer(value) if choice is not None and "message" in choice else _chunk(value)


def _object(body: str | bytes) -> dict[str, Any]:
    try:
        value = parse_json(body, MAX_ANSWER_BYTES)
    except JsonError as error:
        raise HookError(f"not JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise HookError("JSON, but no object")
    return value


def _raise_error(value: dict[str, Any]) -> None:
    error = value.get("error")
    if error:
        message = error.get("message") if isinstance(error, dict) else error
        raise HookError(f"it says: {str(message)[:200]}")


def _choice(value: dict[str, Any]) -> dict[str, Any] | None:
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    return choices[0]


def _hangs_up(value: dict[str, Any]) -> bool:
    return value.get("hang_up") is True


def _pieces(message: dict[str, Any]) -> list[Piece]:
    pieces: list[Piece] = []
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise HookError("content is not text")
    if content:
        pieces.append(TextDelta(content))
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise HookError(f"tool_calls is not a list of at most {MAX_CALLS}")
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise HookError("a tool call without its function")
        index = call.get("index", place)
        if not isinstance(index, int) or not 0 <= index < MAX_CALLS:
            raise HookError(f"a tool call whose index is not 0 to {MAX_CALLS - 1}")
        name, call_id = function.get("name") or "", call.get("id") or ""
        arguments = function.get("arguments") or ""
        if not all(isinstance(one, str) for one in (name, call_id, arguments)):
            raise HookError("a tool call whose id, name or arguments are not text")
        if len(name) > _LARGEST_NAME or len(call_id) > _LARGEST_NAME:
            raise HookError(f"a tool call whose name or id has more than {_LARGEST_NAME} characters")
        pieces.append(CallDelta(index, call_id, name, arguments))
    return pieces
