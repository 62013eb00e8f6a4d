"""The Realtime API's session object as callers bring it: JSON that is judged here and understood by a backend.

Owns: reading JSON that somebody else wrote, and the bounds of a session. Does not own: what its fields mean.
Invariant: what comes through can be written as JSON again by anybody: no NaN, no half of a character, no endless nesting.
"""

import json
from typing import Any, NoReturn

from voicefleet_contract.http_api import MAX_SESSION_BYTES

MAX_DEPTH = 32  # of objects and arrays in each other: a tool's JSON Schema has ten


class JsonError(ValueError):
    """Text that is not JSON, or not JSON that everybody can read."""


class SessionObjectError(ValueError):
    """Not a session object; ``param`` names the field."""

    def __init__(self, message: str, param: str = "session") -> None:
        super().__init__(message)
        self.param = param


def parse_json_untrusted(text: bytes | str) -> Any:
    """Return what JSON text says. Raises JsonError only."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if _depth(value) > MAX_DEPTH:
            raise JsonError(f"more than {MAX_DEPTH} objects and arrays in each other")
        json.dumps(value, ensure_ascii=False).encode()
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"more than {MAX_DEPTH} objects and arrays in each other") from None
    except UnicodeEncodeError:
        raise JsonError("text with half of a surrogate pair") from None
    except ValueError as error:
        raise JsonError(str(error)[:200]) from None
    return value


def parse_session_untrusted(text: bytes) -> dict[str, Any]:
    """Return a session object from its JSON text. Raises SessionObjectError only."""
    if len(text) > MAX_SESSION_BYTES:
        raise SessionObjectError(f"the session has at most {MAX_SESSION_BYTES} bytes")
    try:
        return check_session(parse_json_untrusted(text))
    except JsonError as error:
        raise SessionObjectError(f"the session is not JSON: {error}") from None


def check_session(value: Any) -> dict[str, Any]:
    """Return a value of `parse_json_untrusted` if it is a session object. Raises SessionObjectError."""
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


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no number in JSON")


def _depth(value: Any) -> int:
    """How many containers stand in each other, level by level: no recursion."""
    level, depth = [value], 0
    while level:
        containers = [one for one in level if isinstance(one, dict | list)]
        if not containers:
            return depth
        depth += 1
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
