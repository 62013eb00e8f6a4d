"""What an SDP offer says, in the fields that an answer and a session need, and the error of an offer that says it wrongly.

Owns the types alone. Does not own reading (wire/sdp/offer.py) or answering (wire/sdp/answer.py).
"""

from dataclasses import dataclass
from enum import StrEnum


class SdpProblem(StrEnum):
    """What kind of mistake an offer makes; the gateway turns it into a status code."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"


class SdpError(ValueError):
    """What reading and answering an offer raise, and nothing else. `field` names the part of the offer."""

    def __init__(self, problem: SdpProblem, field: str, message: str) -> None:
        super().__init__(message)
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
class Section:
    """One m-line, kept in order because an answer must answer every one."""

    kind: str
    protocol: str
    formats: str
    mid: str
    offered: bool = True  # False: the client itself has rejected it
    rtpmap: str = ""  # of its first format, if it is RTP that can share our transport


@dataclass(frozen=True, slots=True)
class OfferedAudio:
    """The audio section that we take, and its Opus payload as offered."""

    index: int
    mid: str
    payload_type: int
    telephone_event_type: int | None  # keys pressed (RFC 4733), on the clock of Opus
    fmtp: str
    direction: Direction
    mid_extension_id: int | None
    ptime_ms: int | None
    mux_only: bool = False  # RFC 8858


@dataclass(frozen=True, slots=True)
class OfferedData:
    """The data channel section."""

    index: int
    mid: str
    sctp_port: int
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class OfferedMedia:
    """An offer that we can answer."""

    sections: tuple[Section, ...]
    audio: OfferedAudio
    data: OfferedData | None
    bundled: bool
    ice_ufrag: str
    ice_pwd: str
    fingerprints: tuple[Fingerprint, ...]
    setup: SetupRole
