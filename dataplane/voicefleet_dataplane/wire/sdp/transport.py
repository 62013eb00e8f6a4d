"""The transport of an offer: ICE credentials, certificate, DTLS role, RTCP's place (RFC 8839, 8122, 8842, 5761).

One transport is what we serve. Its attributes are those of the section that the offerer has tagged (RFC 9143 section 7.2,
RFC 9429 section 5.2.1); where that one lacks them, the session's, and then those of the other sections of the group.

Owns which section is believed, and the form of what it says. Does not own the group (wire/sdp/offer.py).
"""

import re
from collections.abc import Sequence

from voicefleet_contract.outside import OutsideError, decode_hex
from voicefleet_dataplane.wire.sdp.lines import Attributes, malformed, unsupported
from voicefleet_dataplane.wire.sdp.model import Fingerprint, SetupRole

_ICE_CHARS = re.compile(r"[0-9A-Za-z+/]+")
_SHORTEST = {"ice-ufrag": 4, "ice-pwd": 22}
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_MAX_FINGERPRINTS = 16
_ROLES = frozenset(role.value for role in SetupRole)


def read_credentials(session: Attributes, sections: Sequence[Attributes]) -> tuple[str, str]:
    """Ufrag and password; ``sections`` in the order in which they are believed. Raises SdpError."""
    for section in sections:
        found = [section.first(name) or session.first(name) for name in _SHORTEST]
        if all(found):
            return _ice(session, section, "ice-ufrag"), _ice(session, section, "ice-pwd")
    first = sections[0]
    missing = next(name for name in _SHORTEST if not (first.first(name) or session.first(name)))
    raise unsupported(
        f"a={missing}",
        f"{first.where} has no a={missing}, nor has the session",
        rule="RFC 8839 section 5.4",
        instead="send the offer as `RTCPeerConnection.createOffer` made it, with ICE",
    )


def _ice(session: Attributes, section: Attributes, name: str) -> str:
    speaker = section if section.first(name) else session
    value = speaker.first(name) or ""
    shortest = _SHORTEST[name]
    if not shortest <= len(value) <= 256 or not _ICE_CHARS.fullmatch(value):
        raise malformed(
            f"a={name}",
            f"a={name} in line {speaker.line_of(name)} is not {shortest} to 256 ice-chars",
            rule="RFC 8839 section 5.4",
            instead="use letters, digits, + and /",
        )
    return value


def read_fingerprints(session: Attributes, sections: Sequence[Attributes]) -> tuple[Fingerprint, ...]:
    """Those with a hash that counts. Raises SdpError."""
    for section in sections:
        speaker = section if section.has("fingerprint") else session
        if speaker.has("fingerprint"):
            return _fingerprints(speaker)
    first = sections[0]
    if first.protocol in ("RTP/AVP", "RTP/AVPF"):
        what = f"{first.where} is {first.protocol} without a=fingerprint: unencrypted RTP"
    elif first.has("crypto"):
        what = f"{first.where} has its keys in a=crypto, and no a=fingerprint"
    else:
        what = f"{first.where} has no a=fingerprint, nor has the session"
    raise unsupported(
        "a=fingerprint",
        what,
        rule="RFC 8827 section 6.5",
        instead="send a=fingerprint and a=setup:actpass, and m=audio 9 UDP/TLS/RTP/SAVPF: keys come by DTLS",
    )


def _fingerprints(speaker: Attributes) -> tuple[Fingerprint, ...]:
    usable: list[Fingerprint] = []
    for value in speaker.all("fingerprint")[:_MAX_FINGERPRINTS]:
        algorithm, _, digest = value.partition(" ")
        algorithm = algorithm.lower()
        expected_bytes = _DIGEST_BYTES.get(algorithm)
        if expected_bytes is None:
            continue
        try:
            raw = decode_hex(digest.strip().replace(":", ""), expected_bytes)
        except OutsideError:
            raw = b""
        if len(raw) != expected_bytes:
            raise malformed(
                "a=fingerprint",
                f"the {algorithm} fingerprint of {speaker.where} does not have {expected_bytes} bytes",
                rule="RFC 8122 section 5",
                instead="write each byte as two hexadecimal digits, with colons between them",
            )
        usable.append(Fingerprint(algorithm, raw))
    if not usable:
        raise unsupported(
            "a=fingerprint",
            f"line {speaker.line_of('fingerprint')}: {speaker.where} has only fingerprints of weak hashes",
            rule="RFC 8122 section 5",
            instead="send one of sha-256, sha-384 or sha-512",
        )
    return tuple(usable)


def read_setup(session: Attributes, sections: Sequence[Attributes]) -> SetupRole:
    """The offered role. Raises SdpError."""
    speaker = next((section for section in (sections[0], session, *sections[1:]) if section.has("setup")), None)
    if speaker is None:
        return SetupRole.ACTIVE  # RFC 4145 section 4
    value = (speaker.first("setup") or "").lower()
    if value not in _ROLES:
        raise unsupported(
            "a=setup",
            f"a=setup:{value[:32]} in line {speaker.line_of('setup')} is no role that an offer may have",
            rule="RFC 5763 section 5",
            instead="send a=setup:actpass",
        )
    return SetupRole(value)


def require_mux(session: Attributes, audio: Attributes, group: Sequence[Attributes]) -> None:
    """Raise SdpError for RTCP on a port of its own. ``group``: the sections that share the audio's transport.

    In a bundle one section speaks for all (RFC 9143 section 9.3), and one that is only there in the bundle need not say it.
    """
    if audio.has("bundle-only") or session.has("rtcp-mux"):
        return
    if not any(section.has("rtcp-mux") or section.has("rtcp-mux-only") for section in (audio, *group)):
        raise unsupported(
            "a=rtcp-mux",
            f"{audio.where} has no a=rtcp-mux: RTCP would have a port of its own",
            rule="RFC 8834 section 4.5",
            instead="send a=rtcp-mux in it (`rtcpMuxPolicy: 'require'`)",
        )
