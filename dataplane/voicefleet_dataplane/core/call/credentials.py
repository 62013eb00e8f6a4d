"""One pair of ICE credentials of a call: what its checks are signed with (RFC 8445 section 5.3)."""

from dataclasses import dataclass

_NEVER = float("inf")


@dataclass(slots=True)
class Credentials:
    """Our ufrag and pwd, and those of the client that they were made for."""

    ufrag: str
    key: bytes
    remote_ufrag: bytes
    remote_pwd: str  # empty: not known
    number: int  # counts a session's restarts
    leaves_at: float = _NEVER
