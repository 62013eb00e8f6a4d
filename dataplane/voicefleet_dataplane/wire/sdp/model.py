"""What an SDP offer says, in the fields that an answer and a session need, and the error of an offer that says it wrongly.

Owns the types alone. Does not own reading (wire/sdp/offer.py) or answering (wire/sdp/answer.py).
"""

from dataclasses import dataclass
from enum import StrEnum

OUR_LIMIT = "a limit of this server"


class SdpProblem(StrEnum):
    """What kind of mistake an offer makes; the gateway turns it into a status code."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"


class SdpError(ValueError):
    """What reading and answering an offer raise, and nothing else. `field` names the part of the offer.

    The text says what is wrong and in which line, which rule says so, and what to send instead.
    """

    def __init__(self, problem: SdpProblem, field: str, what: str, *, rule: str, instead: str) -> None:
        """``rule``: an RFC and its section, or OUR_LIMIT."""
        super().__init__(f"{what} ({rule}): {instead}")
        self.problem = problem
        self.field = field


class SetupRole(StrEnum):
    """a=setup (RFC 4145)."""

    ACTPASS = "actpass"
    ACTIVE = "active"
    PASSIVE = "passive"


class Direction(StrEnum):
    """Which way media flows, seen by whoever wrote it."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def reversed(self) -> "Direction":
        """The same seen from the other side."""
        return _REVERSED[self]

    @property
    def sends(self) -> bool:
        """Whether whoever says it sends."""
        return self in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether whoever says it receives."""
        return self in ("sendrecv", "recvonly")


_REVERSED = {
    Direction.SENDRECV: Direction.SENDRECV,
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
    Direction.INACTIVE: Direction.INACTIVE,
}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digest of a certificate (RFC 8122)."""

    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest.hex(':').upper()}"


@dataclass(frozen=True, slots=True)
class OpusWishes:
    """What the client would like to receive (RFC 7587 section 6.1, RFC 8866 sections 6.4 and 6.5). Without a word: its defaults."""

    dtx: bool = False
    cbr: bool = False
    inband_fec: bool = False
    max_bitrate: int | None = None  # bit/s, on average
    max_playback_hz: int = 48_000
    packet_ms: int = 20  # 10, 20, 40 or 60: what `ptime` prefers, as far as `maxptime` lets it


NO_WISHES = OpusWishes()


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line, kept in order because an answer must answer every one."""

    kind: str
    protocol: str
    formats: str
    mid: str
    offered: bool = True  # False: the client itself has rejected it
    rtpmap: str = ""  # of its first format that has one
    shares: bool = False  # RTP that can stay in our transport, inactive

    @property
    def is_rtp(self) -> bool:
        """Whether its formats are RTP's payload types."""
        return "RTP/" in self.protocol


@dataclass(frozen=True, slots=True)
class OfferedAudio:
    """The audio section that we take, and its Opus payload as offered."""

    index: int
    mid: str
    payload_type: int
    direction: Direction
    wishes: OpusWishes
    telephone_event_type: int | None = None  # keys pressed (RFC 4733) …
    telephone_event_hz: int = 48_000  # … and the clock of their durations
    mid_extension_id: int | None = None
    mid_extension_direction: str = ""  # as the client wrote it; empty: not at all
    mux_only: bool = False  # RFC 8858
    reduced_size: bool = False  # RFC 5506


@dataclass(frozen=True, slots=True)
class OfferedData:
    """The data channel section."""

    index: int
    mid: str
    sctp_port: int
    max_message_bytes: int
    with_sctpmap: bool = False  # the form before RFC 8841: the port is the format


@dataclass(frozen=True, slots=True)
class OfferedMedia:
    """An offer that we can answer.

    `group` are the mids of the BUNDLE group that the audio is in, the offerer's tag first (RFC 9143 section 7.2); empty: the
    audio has a transport to itself.
    """

    sections: tuple[Section, ...]
    audio: OfferedAudio
    data: OfferedData | None
    group: tuple[str, ...]
    ice_ufrag: str
    ice_pwd: str
    fingerprints: tuple[Fingerprint, ...]
    setup: SetupRole

    @property
    def lost_data(self) -> int | None:
        """The index of a data channel section that is offered and cannot be taken, if none is."""
        if self.data is not None:
            return None
        return next((i for i, one in enumerate(self.sections) if one.offered and one.protocol.endswith("/SCTP")), None)
