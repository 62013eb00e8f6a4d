"""The Realtime API's session object as callers bring it: JSON that is judged here and understood by a backend.

Owns: the bounds of a session. Does not own: reading JSON (outside.py), what its fields mean.
"""

import json
from typing import Any

from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.outside import JsonError, parse_json

MAX_SESSION_DEPTH = 32  # of objects and arrays in each other: a tool's JSON Schema has ten


class SessionObjectError(ValueError):
    """Not a session object; ``param`` names the field."""

    def __init__(self, message: str, param: str = "session") -> None:
        super().__init__(message)
        self.param = param


def parse_session_untrusted(text: bytes) -> dict[str, Any]:
    """Return a session object from its JSON text. Raises SessionObjectError only."""
    if len(text) > MAX_SESSION_BYTES:
        raise SessionObjectError(f"the session has at most {MAX_SESSION_BYTES} bytes")
    try:
        return check_session(parse_json(text, MAX_SESSION_BYTES, MAX_SESSION_DEPTH))
    except JsonError as error:
        raise SessionObjectError(f"the session is not JSON: {error}") from None


def check_session(value: Any) -> dict[str, Any]:
    """Return a value of `outside.parse_json` if it is a session object. Raises SessionObjectError."""
    if not isinstance(value, dict):
        raise SessionObjectError('the session is a JSON object, such as {"type": "realtime"}')
    kind = value.get("type", "realtime")
    if kind != "realtime":
        raise SessionObjectError(f"the type of a session is 'realtime', not {str(kind)[:40]!r}", "session.type")
    if len(write_session(value)) > MAX_SESSION_BYTES:
        raise SessionObjectError(f"the session has at most {MAX_SESSION_BYTES} bytes")
    return value


def write_session(session: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(session, ensure_ascii=False, separators=(",", ":")).encode()
