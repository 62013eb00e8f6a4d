"""SDP fragments: what a client says of ICE alone, by PATCH (RFC 8840 section 9, RFC 9725 section 4.3).

Owns the strict, bounded parser of a fragment, and the fragment that answers an ICE restart. Candidates are checked for their
form and then forgotten: we send no checks, and learn a client's addresses from its own.
Invariant: any text gives a Fragment or one FragmentError that says what is wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.answer import candidate_lines

MAX_FRAGMENT_BYTES = 16 * 1024
MAX_CANDIDATES = 256
_UFRAG = re.compile(r"[0-9A-Za-z+/]{4,256}")
_PWD = re.compile(r"[0-9A-Za-z+/]{22,256}")
# RFC 8839 section 5.1: foundation, component, transport, priority, address, port, type; then what the type or an extension says.
_CANDIDATE = re.compile(
    r"[0-9A-Za-z+/]{1,32} [0-9]{1,3} [!-~]{1,32} [0-9]{1,10} [!-~]{1,255} [0-9]{1,5} typ [!-~]{1,32}( [ -~]*)?"
)


class FragmentError(ValueError):
    """Not a fragment; the text says why."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a client says: its credentials, how many candidates, whether these are all."""

    ufrag: str
    pwd: str
    candidates: int
    is_last: bool


def parse_fragment_untrusted(body: bytes) -> Fragment:
    """Read a fragment. Raises only FragmentError."""
    if len(body) > MAX_FRAGMENT_BYTES:
        raise FragmentError(f"a fragment has at most {MAX_FRAGMENT_BYTES} bytes")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise FragmentError("a fragment is ASCII text") from None
    found: dict[str, str] = {}
    candidates, is_last = 0, False
    for number, line in enumerate(text.replace("\r\n", "\n").rstrip("\n").split("\n"), start=1):
        if not line.isprintable() or line[:2] not in ("a=", "m="):
            raise FragmentError(f"line {number} is none of a=… and m=…")
        if line[0] == "m":
            continue  # one transport carries everything: it does not matter which section speaks of it
        name, _, value = line[2:].partition(":")
        if name in ("ice-ufrag", "ice-pwd"):
            form = _UFRAG if name == "ice-ufrag" else _PWD
            if not form.fullmatch(value):
                raise FragmentError(f"a={name} in line {number} is not made of ice-chars, or too short, or too long")
            if found.setdefault(name, value) != value:
                raise FragmentError(f"two values of a={name}: one transport has one")
        elif name == "candidate":
            if not _CANDIDATE.fullmatch(value):
                raise FragmentError(f"line {number} is not a candidate")
            candidates += 1
            if candidates > MAX_CANDIDATES:
                raise FragmentError(f"a fragment has at most {MAX_CANDIDATES} candidates")
        elif name == "end-of-candidates":
            is_last = True
    for name in ("ice-ufrag", "ice-pwd"):
        if name not in found:
            raise FragmentError(f"a fragment has a={name} (RFC 8840 section 4.4)")
    return Fragment(found["ice-ufrag"], found["ice-pwd"], candidates, is_last)


def is_candidate(text: str) -> bool:
    """Whether it has the form of a candidate, with or without the attribute's name in front; empty: there are no more."""
    return not text or _CANDIDATE.fullmatch(text.removeprefix("candidate:")) is not None


def build_fragment(ufrag: str, pwd: str, mids: Sequence[str], candidates: Sequence[Address]) -> str:
    """What answers an ICE restart: our new credentials, and every candidate. ``mids`` are those of the answer's bundle."""
    lines = ["a=ice-lite"]
    if mids:
        lines.append("a=group:BUNDLE " + " ".join(mids))
    lines.append("m=audio 9 UDP/TLS/RTP/SAVPF 0")  # RFC 8840 section 9: ports and formats mean nothing here
    if mids:
        lines.append(f"a=mid:{mids[0]}")
    lines += [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}", *candidate_lines(candidates)]
    return "".join(line + "\r\n" for line in lines)
