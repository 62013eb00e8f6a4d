"""SDP offers read (RFC 8866, 8829, 8839, 8842, 8843, 8841, 8122).

Owns the strict, bounded parser of what a client offers, down to the fields that an answer and a session need.
Does not own the answer (wire/sdp/answer.py). Candidates in an offer are not read: the client is learnt from its
authenticated checks alone, so an offer cannot make us send anything anywhere.
Invariant: any text gives an OfferedMedia or one SdpError that says what is missing and how to mend it.
"""

import re

from voicefleet_contract.outside import OutsideError, decode_hex, parse_integer
from voicefleet_dataplane.wire.sdp.model import (
    Direction,
    Fingerprint,
    OfferedAudio,
    OfferedData,
    OfferedMedia,
    SdpError,
    SdpProblem,
    Section,
    SetupRole,
)

MAX_OFFER_BYTES = 65_536
_MAX_LINES = 4_000
_MAX_SECTIONS = 32

_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]{1,64}")
_ICE_CHARS = re.compile(r"[0-9A-Za-z+/]+")
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_LARGEST_SCTP_PORT = 65_535
_NO_PAYLOAD_TYPE = 128  # one more than the largest


class _Attributes:
    """The a-lines of the session or of one section, in order, with their first values at hand."""

    def __init__(self, kind: str = "", port: int = 0, protocol: str = "", formats: str = "") -> None:
        self.kind = kind
        self.port = port
        self.protocol = protocol
        self.formats = formats
        self.lines: list[tuple[str, str]] = []

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.lines if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.lines)


def parse_offer_untrusted(text: str | bytes) -> OfferedMedia:
    """Read an offer from a client; raises only SdpError."""
    session, sections = _cut(_decode(text))
    bundle = _bundle(session)
    described = tuple(_section(section, index, bundle) for index, section in enumerate(sections))
    mids = [section.mid for section in described if section.mid]
    if len(set(mids)) != len(mids):
        raise _malformed("a=mid", "two m-lines have the same a=mid")
    if session.has("ice-lite"):
        raise _unsupported("a=ice-lite", "the offer is ice-lite, and so are we: nobody would send checks")
    index = _choose_audio(sections)
    audio = sections[index]
    if not audio.has("rtcp-mux"):
        raise _unsupported("a=rtcp-mux", "the audio section has no a=rtcp-mux: RTCP on its own port is not supported")
    if bundle and described[index].mid not in bundle:
        raise _unsupported("a=group:BUNDLE", "the audio section is not in the first BUNDLE group")
    if not bundle and sum(1 for section in sections if section.port) > 1:
        raise _unsupported("a=group:BUNDLE", "several m-lines without a=group:BUNDLE: one transport carries everything")
    ufrag, pwd = _credentials(session, audio)
    return OfferedMedia(
        sections=described,
        audio=_audio(audio, index, described[index].mid),
        data=_data(sections, described, bundle),
        bundled=bool(bundle),
        ice_ufrag=ufrag,
        ice_pwd=pwd,
        fingerprints=_fingerprints(session, audio),
        setup=_setup(session, audio),
    )


def _malformed(field: str, message: str) -> SdpError:
    return SdpError(SdpProblem.MALFORMED, field, message)


def _unsupported(field: str, message: str) -> SdpError:
    return SdpError(SdpProblem.UNSUPPORTED, field, message)


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_OFFER_BYTES:
        raise SdpError(SdpProblem.TOO_LARGE, "sdp", f"the offer is longer than {MAX_OFFER_BYTES} bytes")
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise _malformed("sdp", "the offer is not UTF-8 text") from None


def _cut(text: str) -> tuple[_Attributes, list[_Attributes]]:
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > _MAX_LINES:
        raise SdpError(SdpProblem.TOO_LARGE, "sdp", f"the offer has more than {_MAX_LINES} lines")
    if lines[0] != "v=0":
        raise _malformed("v=", "the offer does not begin with v=0: is the body really SDP?")
    session = current = _Attributes()
    sections: list[_Attributes] = []
    for number, line in enumerate(lines, start=1):
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha() or not line.isprintable():
            raise _malformed("sdp", f"line {number} is not of the form x=value")
        if line[0] == "m":
            if len(sections) == _MAX_SECTIONS:
                raise SdpError(SdpProblem.TOO_LARGE, "m=", f"the offer has more than {_MAX_SECTIONS} m-lines")
            current = _m_line(line[2:], number)
            sections.append(current)
        elif line[0] == "a":
            name, _, value = line[2:].partition(":")
            current.lines.append((name, value.strip()))
    return session, sections


def _m_line(value: str, number: int) -> _Attributes:
    parts = value.split(" ", 3)
    if len(parts) != 4 or not all(map(_TOKEN.fullmatch, parts[3].split(" "))):
        raise _malformed("m=", f"line {number} is not of the form m=kind port protocol formats")
    kind, port, protocol, formats = parts
    if not _TOKEN.fullmatch(kind) or not re.fullmatch(r"[A-Za-z0-9/]{1,64}", protocol) or len(port) > 5:
        raise _malformed("m=", f"line {number} has a kind or protocol that is no token")
    try:
        return _Attributes(kind, parse_integer(port, 65_535), protocol, formats)
    except OutsideError:
        raise _malformed("m=", f"line {number} has a port that is not a number up to 65535") from None


def _section(section: _Attributes, index: int, bundle: tuple[str, ...]) -> Section:
    mid, rtpmap = _mid(section, index), ""
    if _is_offered(section) and section.protocol == "UDP/TLS/RTP/SAVPF" and section.has("rtcp-mux") and mid in bundle:
        first = section.formats.split(" ", 1)[0]
        rtpmap = next((value for value in section.all("rtpmap") if value.startswith(first + " ")), "")[:128]
    return Section(section.kind, section.protocol, section.formats, mid, _is_offered(section), rtpmap)


def _mid(section: _Attributes, index: int) -> str:
    mid = section.first("mid")
    if mid is None:
        return ""
    if not _TOKEN.fullmatch(mid):
        raise _malformed("a=mid", f"a=mid of m-line {index} is not a token of at most 64 characters")
    return mid


def _bundle(session: _Attributes) -> tuple[str, ...]:
    for group in session.all("group"):
        if not group:
            raise _malformed("a=group", "a=group: names no semantics")
        semantics, *mids = group.split()
        if semantics.upper() == "BUNDLE" and mids:
            return tuple(mids)
    return ()


def _is_offered(section: _Attributes) -> bool:
    # Port 0 is a rejected section, unless it only says that it lives in the bundle (RFC 8843 section 6).
    return section.port != 0 or section.has("bundle-only")


def _choose_audio(sections: list[_Attributes]) -> int:
    audio = [index for index, section in enumerate(sections) if section.kind == "audio" and _is_offered(section)]
    if not audio:
        raise _unsupported("m=audio", "the offer has no audio: add an audio track or an audio transceiver")
    for index in audio:
        if sections[index].protocol not in ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP"):
            continue
        if _opus(sections[index]) is not None:
            return index
    if all(not sections[index].protocol.startswith("UDP/TLS/") for index in audio):
        raise _unsupported("m=audio", "the audio section is not UDP/TLS/RTP/SAVPF: unencrypted RTP is not supported")
    raise _unsupported("a=rtpmap", "the audio section offers no opus/48000/2")


def _telephone_event(section: _Attributes, taken: int) -> int | None:
    """RFC 4733 section 2.6: the events share the audio's SSRC, and so its clock."""
    formats = frozenset(section.formats.split(" "))
    for value in section.all("rtpmap"):
        payload_type, _, encoding = value.partition(" ")
        if encoding.strip().lower() == "telephone-event/48000" and payload_type in formats:
            number = _small(payload_type, 127, _NO_PAYLOAD_TYPE)
            return number if number < _NO_PAYLOAD_TYPE and number != taken else None
    return None


def _opus(section: _Attributes) -> int | None:
    offered: dict[str, str] = {}
    for value in section.all("rtpmap"):
        payload_type, _, encoding = value.partition(" ")
        offered[payload_type] = encoding.strip().lower()
    for payload_type in section.formats.split(" "):
        if offered.get(payload_type) == "opus/48000/2":
            number = _small(payload_type, 127, _NO_PAYLOAD_TYPE)
            if number == _NO_PAYLOAD_TYPE:
                raise _malformed("a=rtpmap", "the payload type of opus is not a number up to 127")
            return number
    return None


def _audio(section: _Attributes, index: int, mid: str) -> OfferedAudio:
    payload_type = _opus(section)
    assert payload_type is not None  # _choose_audio chose it for its opus
    fmtp = next(
        (
            rest.strip()
            for value in section.all("fmtp")
            for head, _, rest in (value.partition(" "),)
            if head == str(payload_type)
        ),
        "",
    )
    if len(fmtp) > 256:
        raise _malformed("a=fmtp", "the parameters of opus are longer than 256 characters")
    ptime = section.first("ptime")
    return OfferedAudio(
        index=index,
        mid=mid,
        payload_type=payload_type,
        telephone_event_type=_telephone_event(section, payload_type),
        fmtp=fmtp,
        direction=next((Direction(name) for name, _ in section.lines if name in _DIRECTIONS), Direction.SENDRECV),
        mid_extension_id=_mid_extension(section),
        ptime_ms=_small(ptime, 999, 0) or None,
        mux_only=section.has("rtcp-mux-only"),
    )


def _mid_extension(section: _Attributes) -> int | None:
    for value in section.all("extmap"):
        head, _, rest = value.partition(" ")
        number, _, direction = head.partition("/")
        if rest.split(" ")[0] == _MID_EXTENSION and direction in ("", "sendrecv", "recvonly"):
            # The one-byte form has ids 1 to 14 (RFC 8285); others would need the two-byte form, which we do not send.
            return _small(number, 14, 0) or None
    return None


def _data(sections: list[_Attributes], described: tuple[Section, ...], bundle: tuple[str, ...]) -> OfferedData | None:
    for index, section in enumerate(sections):
        if (
            section.kind != "application"
            or not _is_offered(section)
            or section.protocol != "UDP/DTLS/SCTP"
            or section.formats != "webrtc-datachannel"
            or described[index].mid not in bundle
        ):
            continue
        return OfferedData(
            index,
            described[index].mid,
            _number(section, "sctp-port", 5_000, _LARGEST_SCTP_PORT),
            _number(section, "max-message-size", 65_536, 1 << 62),
        )
    return None


def _number(section: _Attributes, name: str, default: int, largest: int) -> int:
    value = section.first(name)
    if value is None:
        return default
    try:
        return parse_integer(value, largest)
    except OutsideError:
        raise _malformed(f"a={name}", f"a={name} is not a number up to {largest}") from None


def _small(text: str | None, most: int, otherwise: int) -> int:
    """Return a number up to ``most``, or ``otherwise`` for what is none."""
    try:
        return parse_integer(text or "", most)
    except OutsideError:
        return otherwise


def _credentials(session: _Attributes, audio: _Attributes) -> tuple[str, str]:
    found = []
    for name, shortest in (("ice-ufrag", 4), ("ice-pwd", 22)):
        value = audio.first(name) or session.first(name)
        if value is None:
            raise _unsupported(f"a={name}", f"the offer has no a={name}: is it a WebRTC offer?")
        if not shortest <= len(value) <= 256 or not _ICE_CHARS.fullmatch(value):
            raise _malformed(f"a={name}", f"a={name} is not {shortest} to 256 ice-chars")
        found.append(value)
    return found[0], found[1]


def _fingerprints(session: _Attributes, audio: _Attributes) -> tuple[Fingerprint, ...]:
    values = audio.all("fingerprint") or session.all("fingerprint")
    if not values:
        raise _unsupported("a=fingerprint", "the offer has no a=fingerprint: DTLS-SRTP is mandatory")
    usable: list[Fingerprint] = []
    for value in values[:16]:
        algorithm, _, digest = value.partition(" ")
        expected_bytes = _DIGEST_BYTES.get(algorithm.lower())
        if expected_bytes is None:
            continue
        try:
            raw = decode_hex(digest.strip().replace(":", ""), expected_bytes)
        except OutsideError:
            raw = b""
        if len(raw) != expected_bytes:
            raise _malformed(
                "a=fingerprint", f"the {algorithm.lower()} fingerprint does not have {expected_bytes} bytes"
            )
        usable.append(Fingerprint(algorithm.lower(), raw))
    if not usable:
        raise _unsupported("a=fingerprint", "only weak fingerprints: offer sha-256, sha-384 or sha-512")
    return tuple(usable)


def _setup(session: _Attributes, audio: _Attributes) -> SetupRole:
    # Absent means active (RFC 4145 section 4).
    value = audio.first("setup") or session.first("setup") or "active"
    try:
        return SetupRole(value.lower())
    except ValueError:
        raise _unsupported("a=setup", "a=setup is none of actpass, active, passive") from None
