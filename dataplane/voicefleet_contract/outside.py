"""Reading what somebody else wrote: every number, encoding and JSON text that comes from outside is read by these functions.

Python's own readers take more than a protocol means. ``int`` takes "²" for no number and "١" for 1, ``"²".isdigit()`` is true, `json`
takes NaN and makes infinity of 1e999, base64 raises three kinds of error, and nested text ends in a RecursionError. Here each
reader has a bound in bytes and steps, and one error.

Owns: bounds and form. Does not own: what a value means. `tests/unit/test_outside_is_read_here.py` finds code that goes around it.
Invariant: whatever the text is, a function gives its value or raises OutsideError, in time linear in the text's length.
"""

import base64
import json
import math
import re
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

MAX_DEPTH = 64  # of objects and arrays in each other: a session object has 32, and travels in events and keys
MAX_INTEGER_DIGITS = 40  # of JSON: 128 bits. float() of more than 308 raises, int() of many is quadratic
_MAX_NUMBER_CHARS = 400
_DIGITS = re.compile(r"[0-9]{1,19}")  # the largest of 63 bits has 19
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BASE64_URL = re.compile(rb"[A-Za-z0-9_-]*={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")

_M = TypeVar("_M", bound=BaseModel)


class OutsideError(ValueError):
    """Text from outside that is not what it should be; ``param`` names the field, if it has fields."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


class JsonError(OutsideError):
    """Text that is not JSON, or not JSON that everybody can read."""


def parse_json(text: bytes | str, most_bytes: int, most_depth: int = MAX_DEPTH) -> Any:
    """Return what JSON text (UTF-8, RFC 8259) says; ``most_bytes`` counts characters of a str. Raises JsonError only.

    What comes back can be written as JSON again by anybody: no NaN, no infinity, no half of a character, no endless nesting.
    """
    if len(text) > most_bytes:
        raise JsonError(f"more than {most_bytes} bytes")
    try:
        whole = text if isinstance(text, str) else text.decode()
        value = _DECODER.decode(whole)
        if _depth(value) > most_depth:
            raise JsonError(f"more than {most_depth} objects and arrays in each other")
        # Half of a surrogate pair comes by an escape, or in a str that was never UTF-8.
        if "\\u" in whole or not whole.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"more than {most_depth} objects and arrays in each other") from None
    except UnicodeEncodeError:
        raise JsonError("text with half of a surrogate pair") from None
    except UnicodeDecodeError:
        raise JsonError("not UTF-8 text") from None
    except ValueError as error:
        raise JsonError(str(error)[:200]) from None
    return value


def parse_model(model: type[_M], text: bytes | str, most_bytes: int) -> _M:
    """Return a model from its JSON text. Raises OutsideError that names the first field that is wrong."""
    if len(text) > most_bytes:
        raise OutsideError(f"more than {most_bytes} bytes")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise OutsideError(first["msg"], ".".join(map(str, first["loc"]))) from None


def finite(value: Any) -> Any:
    """Return a value that can be written as JSON. Raises ValueError: fields of any type let a model take NaN and infinity."""
    json.dumps(value, allow_nan=False)
    return value


def parse_integer(text: str, most: int, least: int = 0) -> int:
    """Return a number of one to nineteen ASCII digits between bounds. Raises OutsideError."""
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise OutsideError(f"{text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)


def parse_number(text: str) -> float:
    """Return a decimal number, finite and in ASCII. Raises OutsideError."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise OutsideError(f"{text[:40]!r} is not a number")
    return float(text)


def is_digits(text: str) -> bool:
    """Tell whether text is ASCII digits and nothing else."""
    return text.isascii() and text.isdigit()


def decode_base64(text: str | bytes, most_bytes: int) -> bytes:
    """Return the bytes of base64 with its padding (RFC 4648 §4), at most ``most_bytes``. Raises OutsideError."""
    raw = _ascii(text, most_bytes)
    if not _BASE64.fullmatch(raw) or len(raw) % 4:
        raise OutsideError("not base64")
    return _within(base64.b64decode(raw), most_bytes)


def decode_base64_url(text: str | bytes, most_bytes: int) -> bytes:
    """Return the bytes of base64url (RFC 4648 §5), padded or not, at most ``most_bytes``. Raises OutsideError."""
    raw = _ascii(text, most_bytes)
    if not _BASE64_URL.fullmatch(raw) or len(raw.rstrip(b"=")) % 4 == 1:
        raise OutsideError("not base64url")
    return _within(base64.urlsafe_b64decode(raw.rstrip(b"=") + b"=="), most_bytes)


def decode_hex(text: str, most_bytes: int) -> bytes:
    """Return the bytes of pairs of hexadecimal digits, at most ``most_bytes``. Raises OutsideError."""
    if len(text) > 2 * most_bytes or not _HEX.fullmatch(text):
        raise OutsideError(f"not hexadecimal digits of at most {most_bytes} bytes")
    return bytes.fromhex(text)


def _ascii(text: str | bytes, most_bytes: int) -> bytes:
    if len(text) > 4 * (most_bytes // 3 + 1):
        raise OutsideError(f"more than {most_bytes} bytes in base64")
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise OutsideError("not base64: not ASCII") from None


def _within(value: bytes, most_bytes: int) -> bytes:
    if len(value) > most_bytes:
        raise OutsideError(f"more than {most_bytes} bytes in base64")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no number in JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS:
        raise JsonError(f"a number of more than {MAX_INTEGER_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= _MAX_NUMBER_CHARS else math.inf
    if math.isinf(value):
        raise JsonError(f"{text[:40]} is more than a double holds")
    return value


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


_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_integer, parse_constant=_refuse_constant)
