"""SDP text cut into lines, and what lines say put by section (RFC 8866 sections 5 and 9).

Owns the form of a line, the bounds on their number, and what is forgiven: blanks around lines, TABs and other control
bytes (read as blanks), empty lines, a byte order mark, line ends of any kind, text that is not UTF-8 in what nobody reads.
Does not own what an attribute means (wire/sdp/offer.py, transport.py, codecs.py).
"""

import re
from collections.abc import Iterator

from voicefleet_dataplane.wire.sdp.model import OUR_LIMIT, SdpError, SdpProblem

MAX_OFFER_BYTES = 65_536
_MAX_LINES = 4_000
_MAX_SECTIONS = 32
TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]{1,64}")
_PORT = re.compile(r"([0-9]{1,5})(/[0-9]{1,5})?")
_CONTROLS = {code: " " for code in (*range(32), 127) if chr(code) not in "\r\n"}


class Attributes:
    """The a-lines of the session or of one section, in order."""

    __slots__ = ("formats", "index", "kind", "lines", "number", "port", "protocol")

    def __init__(self, number: int = 0, kind: str = "", port: int = 0, protocol: str = "", formats: str = "") -> None:
        self.number = number  # of its m-line in the text; 0: the session
        self.index = -1  # among the m-lines
        self.kind = kind
        self.port = port
        self.protocol = protocol
        self.formats = formats
        self.lines: list[tuple[int, str, str]] = []  # number in the text, name, value

    @property
    def where(self) -> str:
        """How a message names it."""
        return f"m-line {self.index} ({self.kind}, line {self.number})" if self.number else "the session"

    def first(self, name: str) -> str | None:
        """The first value of an attribute; empty for a flag."""
        return next((value for _, key, value in self.lines if key == name), None)

    def all(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value for _, key, value in self.lines if key == name]

    def has(self, name: str) -> bool:
        """Whether there is one."""
        return any(key == name for _, key, _ in self.lines)

    def line_of(self, name: str) -> int:
        """The number of the first line that says it; its own if none does."""
        return next((number for number, key, _ in self.lines if key == name), self.number)

    def by_format(self, name: str) -> Iterator[tuple[str, str]]:
        """(format, the rest), for attributes that begin with a format: rtpmap, fmtp."""
        for value in self.all(name):
            head, _, rest = value.partition(" ")
            yield head, rest.strip()

    @property
    def is_offered(self) -> bool:
        """Port 0 is a rejected section, unless it only says that it lives in the bundle (RFC 9143 section 6)."""
        return self.port != 0 or self.has("bundle-only")


def malformed(field: str, what: str, *, rule: str, instead: str) -> SdpError:
    """Not SDP, or not what the grammar of an attribute allows."""
    return SdpError(SdpProblem.MALFORMED, field, what, rule=rule, instead=instead)


def unsupported(field: str, what: str, *, rule: str, instead: str) -> SdpError:
    """Good SDP that we cannot answer."""
    return SdpError(SdpProblem.UNSUPPORTED, field, what, rule=rule, instead=instead)


def _too_large(field: str, what: str) -> SdpError:
    return SdpError(
        SdpProblem.TOO_LARGE,
        field,
        what,
        rule=OUR_LIMIT,
        instead="leave out m-lines and candidates: none but one is needed",
    )


def cut_untrusted(text: str | bytes) -> tuple[Attributes, list[Attributes]]:
    """The session's attributes, and each section's. Raises SdpError."""
    if len(text) > MAX_OFFER_BYTES:
        raise _too_large("sdp", f"the offer is longer than {MAX_OFFER_BYTES} bytes")
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines = text.removeprefix("\ufeff").translate(_CONTROLS).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > _MAX_LINES:
        raise _too_large("sdp", f"the offer has more than {_MAX_LINES} lines")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered or numbered[0][1] != "v=0":
        raise malformed(
            "v=",
            "the offer does not begin with v=0",
            rule="RFC 8866 section 5.1",
            instead="the body is the text of the description itself (`offer.sdp`), neither JSON nor escaped",
        )
    session = current = Attributes()
    sections: list[Attributes] = []
    for number, line in numbered:
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha():
            raise malformed(
                "sdp",
                f"line {number} is not of the form x=value",
                rule="RFC 8866 section 5",
                instead="send one letter, `=` and the value in each line",
            )
        if line[0] == "m":
            if len(sections) == _MAX_SECTIONS:
                raise _too_large("m=", f"the offer has more than {_MAX_SECTIONS} m-lines")
            current = _m_line(line[2:], number)
            current.index = len(sections)
            sections.append(current)
        elif line[0] == "a":
            name, _, value = line[2:].partition(":")
            current.lines.append((number, name.strip(), value.strip()))
    return session, sections


def _m_line(value: str, number: int) -> Attributes:
    parts = value.split(None, 3)
    port = _PORT.fullmatch(parts[1]) if len(parts) > 2 else None
    formats = parts[3].split() if len(parts) == 4 else []
    is_good = (
        port is not None
        and int(port[1]) <= 65_535
        and TOKEN.fullmatch(parts[0])
        and re.fullmatch(r"[A-Za-z0-9/\-]{1,64}", parts[2])
        and all(map(TOKEN.fullmatch, formats))
    )
    if not is_good or port is None:
        raise malformed(
            "m=",
            f"line {number} is not of the form m=kind port protocol formats",
            rule="RFC 8866 section 5.14",
            instead="send for instance m=audio 9 UDP/TLS/RTP/SAVPF 111",
        )
    return Attributes(number, parts[0], int(port[1]), parts[2], " ".join(formats))
