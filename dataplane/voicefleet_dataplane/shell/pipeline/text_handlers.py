"""The text stage of a voice pipeline: whoever answers what was said. Found by name, as engines are.

Owns: the protocols, and the handler that says again what it heard. Does not own: hooks (shell/pipeline/text_hook.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from voicefleet_dataplane.media.backend import CallConfig
from voicefleet_dataplane.media.pipeline.chat import Finished, Piece, TextDelta
from voicefleet_dataplane.shell.agents.dialer import AgentSockets

TEXT_HANDLER = "voicefleet.text_handler"


class TextListener(Protocol):
    """Who asks. Nothing here may block."""

    def on_pieces(self, turn: str, pieces: Sequence[Piece]) -> None:
        """More of an answer."""

    def on_text_failed(self, turn: str, code: str, message: str) -> None:
        """There will be no more of it."""

    def on_text_handler_left(self, reason: str) -> None:
        """The handler ends the call."""


class TextHandler(Protocol):
    """One call's."""

    def ask(self, turn: str, request: dict[str, Any]) -> None:
        """Answer a Chat Completions request; one at a time."""

    def withdraw(self, turn: str) -> None:
        """Nobody wants the answer any more."""

    def close(self) -> None:
        """The call is over."""


@dataclass(frozen=True, slots=True)
class HandlerResources:
    """What the process has for its handlers."""

    urls: Sequence[str]
    sockets: AgentSockets
    connect_within_s: float


class TextHandlers(Protocol):
    """Made once in a process, with its HandlerResources."""

    def open(self, config: CallConfig, listener: TextListener) -> TextHandler:
        """Return one call's."""

    async def close(self) -> None:
        """The process ends."""


class Repeat:
    """Says what it heard: for demonstrations, and to see whether hearing and speaking work."""

    def __init__(self, resources: HandlerResources) -> None:
        """Nothing is needed."""

    def open(self, config: CallConfig, listener: TextListener) -> TextHandler:
        """Return one call's."""
        return _Repeater(listener)

    async def close(self) -> None:
        """Nothing is open."""


class _Repeater:
    def __init__(self, listener: TextListener) -> None:
        self._listener = listener

    def ask(self, turn: str, request: dict[str, Any]) -> None:
        heard = [message["content"] for message in request["messages"] if message["role"] == "user"]
        said = f"You said: {heard[-1]}." if heard else "I am listening."
        self._listener.on_pieces(turn, [TextDelta(said), Finished()])

    def withdraw(self, turn: str) -> None:
        """The answer was there at once."""

    def close(self) -> None:
        """Nothing is open."""
