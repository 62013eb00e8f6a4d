"""`multipart/form-data` (RFC 7578) of a body that is whole already: what browsers' FormData and HTTP clients send.

Owns: taking the parts apart. Does not own: sizes of the whole, what a part means.
Invariant: linear in the body's length; any bytes give parts or FormError.
"""

from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32

_MAX_PART_HEADER_BYTES = 2_048
_MAX_CONTENT_TYPE_CHARS = 256
_MAX_BOUNDARY_CHARS = 70  # RFC 2046 section 5.1.1
_PLAIN_ENCODINGS = frozenset(("", "7bit", "8bit", "binary"))  # RFC 7578 section 4.7: no others


class FormError(ValueError):
    """Not a form that we can read; ``param`` names the part, if it is about one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def parse_form_untrusted(content_type: str, body: bytes, fields: frozenset[str]) -> dict[str, bytes]:
    """Return the parts by name: exactly ``fields``, each once. Raises FormError only."""
    boundary = _boundary(content_type)
    _, *segments = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(), len(fields) + 2)
    if len(segments) <= len(fields) and not any(segment.startswith(b"--") for segment in segments):
        raise FormError("the form does not end: its last boundary is missing")
    parts: dict[str, bytes] = {}
    for segment in segments:
        if segment.startswith(b"--"):
            break
        name, content = _part(segment)
        if name not in fields:
            raise FormError(f"the form has a part {name[:40]!r}; it has exactly {_names(fields)}", name[:40])
        if name in parts:
            raise FormError(f"the form has two parts {name!r}", name)
        parts[name] = content
    for missing in sorted(fields - parts.keys()):
        raise FormError(f"the form has no part {missing!r}; it has exactly {_names(fields)}", missing)
    return parts


def _boundary(content_type: str) -> str:
    header = Message()
    header["Content-Type"] = content_type[:_MAX_CONTENT_TYPE_CHARS]
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _MAX_BOUNDARY_CHARS or not boundary.isascii():
        raise FormError("multipart/form-data needs its boundary: let your HTTP client write the Content-Type")
    return boundary


def _part(segment: bytes) -> tuple[str, bytes]:
    after, line_end, rest = segment.partition(b"\r\n")
    if after.strip(b" \t") or not line_end:
        raise FormError("a boundary of the form does not end its line")
    head, blank, content = (b"\r\n" + rest).partition(b"\r\n\r\n")
    if not blank or len(head) > _MAX_PART_HEADER_BYTES:
        raise FormError("a part of the form has no end of its headers, or too many of them")
    headers = BytesHeaderParser(policy=compat32).parsebytes(head.lstrip(b"\r\n") + b"\r\n\r\n")
    if _text(headers.get("Content-Transfer-Encoding")).strip().lower() not in _PLAIN_ENCODINGS:
        raise FormError("a part of the form has a Content-Transfer-Encoding: send it as it is")
    return _name(headers), content


def _name(headers: Message) -> str:
    try:
        disposition, name = headers.get_content_disposition(), headers.get_param("name", header="content-disposition")
    except (MessageError, ValueError, LookupError):
        disposition, name = None, None
    if disposition != "form-data" or not isinstance(name, str) or not name:
        raise FormError("a part of the form has no 'Content-Disposition: form-data; name=…'")
    return name


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _names(fields: frozenset[str]) -> str:
    return " and ".join(repr(name) for name in sorted(fields))
