"""SRTP and SRTCP (RFC 3711, RFC 7714) for one call: keys in, packets through libsrtp, failures counted.

Owns the two libsrtp contexts of a call and the table of protection profiles that DTLS-SRTP can agree on (RFC 5764).
Does not own where keys come from (core/call/dtls.py hands them out only after the fingerprint has been checked).
Invariant: a packet that fails to open gives a reason and changes nothing; it never ends a call.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pylibsrtp

# Wider than libsrtp's 128: two paths of a flow that moves between relays may interleave by that much.
REPLAY_WINDOW_PACKETS = 1024


class _LibsrtpSession(Protocol):
    def protect(self, packet: bytes) -> bytes: ...
    def protect_rtcp(self, packet: bytes) -> bytes: ...
    def unprotect(self, packet: bytes) -> bytes: ...
    def unprotect_rtcp(self, packet: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SrtpProfile:
    """One protection profile: its name in OpenSSL, its number in libsrtp, and how long its keys and salts are."""

    name: str
    libsrtp_number: int
    key_bytes: int
    salt_bytes: int
    tag_after_index_bytes: int = 0  # in SRTCP

    @property
    def keying_material_bytes(self) -> int:
        """What RFC 5764 section 4.2 asks the DTLS exporter for: two keys, then two salts."""
        return 2 * (self.key_bytes + self.salt_bytes)


AES_128_GCM = SrtpProfile("SRTP_AEAD_AES_128_GCM", pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12)
AES_256_GCM = SrtpProfile("SRTP_AEAD_AES_256_GCM", pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12)
AES_128_CM_SHA1_80 = SrtpProfile("SRTP_AES128_CM_SHA1_80", pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14, 10)

# Our order of preference. It decides only where we are the DTLS server; as client the peer's order wins.
PROFILES = (AES_128_GCM, AES_256_GCM, AES_128_CM_SHA1_80)


@dataclass(frozen=True, slots=True, repr=False)
class SrtpKeys:
    """Master key and salt of each direction, seen from us. No repr: keys stay out of logs and tracebacks."""

    profile: SrtpProfile
    send: bytes
    receive: bytes


def split_keying_material(profile: SrtpProfile, material: bytes, *, we_are_client: bool) -> SrtpKeys:
    """Cut the exporter's output: client key, server key, client salt, server salt (RFC 5764 section 4.2)."""
    key, salt = profile.key_bytes, profile.salt_bytes
    client = material[:key] + material[2 * key : 2 * key + salt]
    server = material[key : 2 * key] + material[2 * key + salt : 2 * (key + salt)]
    return SrtpKeys(profile, client, server) if we_are_client else SrtpKeys(profile, server, client)


class SrtpFailure(StrEnum):
    """Why a packet did not open."""

    AUTHENTICATION = "authentication"
    REPLAY = "replay"
    MALFORMED = "malformed"


class Srtp:
    """Both directions of one call."""

    __slots__ = ("_receive", "_send", "failure", "profile")

    def __init__(self, keys: SrtpKeys) -> None:
        self.profile = keys.profile
        self.failure = SrtpFailure.MALFORMED
        self._send: _LibsrtpSession = pylibsrtp.Session(
            _build_policy(keys.profile, keys.send, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        )
        self._receive: _LibsrtpSession = pylibsrtp.Session(
            _build_policy(keys.profile, keys.receive, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        )

    def protect(self, packet: bytes) -> bytes | None:
        """Encrypt one of our own RTP packets; None for a sequence number used before, or more than libsrtp takes."""
        try:
            return self._send.protect(packet)
        except (pylibsrtp.Error, ValueError):
            return None

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Encrypt one of our own RTCP compounds."""
        return self._send.protect_rtcp(packet)

    def unprotect_untrusted(self, packet: bytes) -> bytes | None:
        """Open an SRTP packet from the network; None leaves the reason in `failure`."""
        try:
            return self._receive.unprotect(packet)
        except (pylibsrtp.Error, ValueError) as error:
            self.failure = _failure_of(error)
            return None

    def rtcp_index(self, packet: bytes) -> int:
        """Return the SRTCP index of a packet that opened (RFC 3711 section 3.4: before the tag; RFC 7714 section 9.2: at the end)."""
        end = len(packet) - self.profile.tag_after_index_bytes
        return int.from_bytes(packet[end - 4 : end]) & 0x7FFFFFFF

    def unprotect_rtcp_untrusted(self, packet: bytes) -> bytes | None:
        """Open an SRTCP packet from the network; None leaves the reason in `failure`."""
        try:
            return self._receive.unprotect_rtcp(packet)
        except (pylibsrtp.Error, ValueError) as error:
            self.failure = _failure_of(error)
            return None


def _build_policy(profile: SrtpProfile, key: bytes, ssrc_type: int) -> pylibsrtp.Policy:
    policy = pylibsrtp.Policy(key=key, ssrc_type=ssrc_type, srtp_profile=profile.libsrtp_number)
    policy.window_size = REPLAY_WINDOW_PACKETS
    # The same sequence number never goes out twice with other bytes: under GCM that would reuse a nonce.
    policy.allow_repeat_tx = False
    return policy


def _failure_of(error: Exception) -> SrtpFailure:
    text = str(error)
    if text.startswith("authentication"):
        return SrtpFailure.AUTHENTICATION
    if text.startswith("replay") or "too old" in text:
        return SrtpFailure.REPLAY
    return SrtpFailure.MALFORMED
