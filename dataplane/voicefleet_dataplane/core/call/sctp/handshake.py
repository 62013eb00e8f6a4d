"""How an association comes up: INIT, parameters, state cookies (RFC 9260 sections 5.1 and 5.2).

A cookie is all that an answered INIT leaves behind. It carries both ends and the tie-tags, under a key and with a date::

    our tag, peer's tag, our TSN, peer's TSN, peer's window, streams out, streams in, flags, our tie, peer's tie, ms : MAC

What a COOKIE ECHO means to an association that exists (section 5.2.4, table 12; ≠ means different, 0 that the tie-tags are
zero)::

    our tag  peer's tag  ties match │
       ≠          ≠         yes     │ A  the peer has started again: everything of before is over
       =          ≠                 │ B  both have sent INIT
       ≠          =          0      │ C  a late cookie: silence
       =          =                 │ D  ours was lost on its way: COOKIE ACK again
    anything else                   │    silence

Owns: these bytes and rules. Does not own: states and timers (association.py).
"""

import hmac
from dataclasses import dataclass
from enum import Enum, auto
from struct import Struct

from voicefleet_dataplane.core.call.sctp.chunks import FORWARD_TSN, RE_CONFIG, Init

STATE_COOKIE, UNRECOGNIZED, HOST_NAME = 7, 8, 11
_SUPPORTED_EXTENSIONS, _FORWARD_TSN_SUPPORTED = 0x8008, 0xC000
# Known and of no use here: addresses, cookie preservative, ECN, padding, AUTH's three, zero checksum, adaptation layer. Whoever
# offers one of them goes on without.
_PASSED_OVER = frozenset({5, 6, 9, 12, 0x8000, 0x8001, 0x8002, 0x8003, 0x8004, 0x8005, 0xC006})
MAX_STREAMS = 65_535
COOKIE_LIFETIME_MS = 60_000
_COOKIE = Struct("!LLLLLHHBLLQ")
_MAC_BYTES = 16
_MAX_REPORTED = 8
_PARTIAL, _RECONFIG = 1, 2


@dataclass(frozen=True, slots=True)
class Ends:
    """What INIT and INIT ACK agree on. Tags and TSNs are as on the wire."""

    our_tag: int
    our_tsn: int
    peers_tag: int
    peers_tsn: int
    window: int  # the peer's
    streams_out: int
    streams_in: int
    partial: bool  # the peer knows FORWARD-TSN
    reconfig: bool  # … and RE-CONFIG


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie of ours that came back."""

    ends: Ends
    our_tie: int
    peers_tie: int
    age_ms: int


class Meaning(Enum):
    """What a cookie means to an association that exists."""

    RESTART = auto()
    COLLISION = auto()
    REPEATED = auto()
    NOTHING = auto()


def build_parameters_of_init() -> tuple[tuple[int, bytes], ...]:
    """Return what we offer: partial reliability and stream reset (RFC 8831 section 5)."""
    return ((_FORWARD_TSN_SUPPORTED, b""), (_SUPPORTED_EXTENSIONS, bytes((RE_CONFIG, FORWARD_TSN))))


def agree(init: Init, our_tag: int, our_tsn: int) -> Ends:
    """Return what an INIT or INIT ACK of the peer settles."""
    parameters = dict(init.parameters)
    extensions = parameters.get(_SUPPORTED_EXTENSIONS, b"")
    return Ends(
        our_tag,
        our_tsn,
        init.tag,
        init.tsn,
        init.window,
        min(MAX_STREAMS, init.inbound_streams),
        min(MAX_STREAMS, init.outbound_streams),
        partial=_FORWARD_TSN_SUPPORTED in parameters or FORWARD_TSN in extensions,
        reconfig=RE_CONFIG in extensions,
    )


def unrecognized(init: Init) -> list[tuple[int, bytes]]:
    """Return the unknown parameters that the peer wants to hear of: the second bit of the type says so (section 3.2.1).

    The first bit says whether to go on after it.
    """
    reported: list[tuple[int, bytes]] = []
    for kind, value in init.parameters:
        if kind in _PASSED_OVER or kind in {STATE_COOKIE, UNRECOGNIZED, _SUPPORTED_EXTENSIONS, _FORWARD_TSN_SUPPORTED}:
            continue
        if kind & 0x4000 and len(reported) < _MAX_REPORTED:
            reported.append((kind, value[:64]))
        if not kind & 0x8000:
            break
    return reported


def seal_cookie(ends: Ends, ties: tuple[int, int], now_ms: int, key: bytes) -> bytes:
    """Build a cookie."""
    flags = _PARTIAL * ends.partial | _RECONFIG * ends.reconfig
    plain = _COOKIE.pack(
        ends.our_tag, ends.peers_tag, ends.our_tsn, ends.peers_tsn, ends.window, ends.streams_out, ends.streams_in,
        flags, *ties, now_ms,
    )  # fmt: skip
    return plain + hmac.digest(key, plain, "sha256")[:_MAC_BYTES]


def open_cookie(cookie: bytes, now_ms: int, key: bytes) -> Cookie | None:
    """Return what a cookie says; None if it is not ours."""
    plain, mac = cookie[: _COOKIE.size], cookie[_COOKIE.size :]
    if len(plain) != _COOKIE.size or not hmac.compare_digest(mac, hmac.digest(key, plain, "sha256")[:_MAC_BYTES]):
        return None
    ours, peers, our_tsn, peers_tsn, window, out, into, flags, our_tie, peers_tie, made_ms = _COOKIE.unpack(plain)
    ends = Ends(
        ours,
        our_tsn,
        peers,
        peers_tsn,
        window,
        out,
        into,
        partial=bool(flags & _PARTIAL),
        reconfig=bool(flags & _RECONFIG),
    )
    return Cookie(ends, our_tie, peers_tie, now_ms - made_ms)


def judge_cookie(cookie: Cookie, our_tag: int, peers_tag: int) -> Meaning:
    """Section 5.2.4."""
    ours, peers = cookie.ends.our_tag == our_tag, cookie.ends.peers_tag == peers_tag
    if ours:
        return Meaning.REPEATED if peers else Meaning.COLLISION
    if not peers and (cookie.our_tie, cookie.peers_tie) == (our_tag, peers_tag):
        return Meaning.RESTART
    return Meaning.NOTHING
