"""Server events of the Realtime API, and why one of the client's is refused.

Owns: their envelope. Does not own: when which is sent.
"""

from collections.abc import Callable
from typing import Any

from voicefleet_dataplane.media.agent import Tell, build_json

NewId = Callable[[str], str]  # "item" → "item_…", never the same


class EventError(Exception):
    """What a client asked for cannot be done. ``code`` is the API's, or ours; ``param`` names the field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class EventWriter:
    """Gives each event its id."""

    def __init__(self, new_id: NewId) -> None:
        self.new_id = new_id

    def tell(self, event_type: str, **fields: Any) -> Tell:
        """Return an event."""
        return Tell(build_json(type=event_type, event_id=self.new_id("event"), **fields))

    def error(
        self, code: str, message: str, *, param: str | None = None, event_id: str | None = None, ours: bool = False
    ) -> Tell:
        """Return an `error`; ``ours``: no event of the client caused it."""
        kind = "server_error" if ours else "invalid_request_error"
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
        return self.tell("error", error=error)
