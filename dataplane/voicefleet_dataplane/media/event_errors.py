"""The `error` event of the Realtime API, as we say it, and events of our own about a call.

Owns: their form. Does not own: who is told, or when.
"""

import json
import secrets


def build_error(code: str, message: str, *, kind: str = "invalid_request_error", event_id: str | None = None) -> str:
    """Return the Realtime API's `error` event."""
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": event_id}
    return json.dumps({"type": "error", "event_id": f"event_{secrets.token_hex(8)}", "error": error})


def build_notice(kind: str, **fields: str | float) -> str:
    """Return an event of our own about the call; clients that know it not look past its type."""
    return json.dumps({"type": kind, "event_id": f"event_{secrets.token_hex(8)}"} | fields)
