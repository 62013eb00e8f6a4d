"""SDP offers read (RFC 8866, 9429, 8839, 8842, 9143, 8841, 8122).

Owns what is taken of an offer: which audio section, which data channels, which group they share. The text is cut by
wire/sdp/lines.py; what sections say of transport and codecs is read by wire/sdp/transport.py and codecs.py.
Does not own the answer (wire/sdp/answer.py). Candidates in an offer are not read: the client is learnt from its
authenticated checks alone, so an offer cannot make us send anything anywhere.
Invariant: any text gives an OfferedMedia or one SdpError that says what is wrong, by which rule, and what to send instead.
"""

import re

from voicefleet_dataplane.wire.sdp.codecs import (
    find_mid_extension,
    find_opus,
    find_telephone_event,
    first_rtpmap,
    read_wishes,
)
from voicefleet_dataplane.wire.sdp.lines import TOKEN, Attributes, cut_untrusted, malformed, unsupported
from voicefleet_dataplane.wire.sdp.model import Direction, OfferedAudio, OfferedData, OfferedMedia, SdpError, Section
from voicefleet_dataplane.wire.sdp.transport import read_credentials, read_fingerprints, read_setup, require_mux

# RFC 9429 section 5.1.2: what endpoints write of one and the same DTLS-SRTP. Which key exchange it is a=fingerprint says.
RTP_PROFILES = frozenset(
    (
        "UDP/TLS/RTP/SAVPF",
        "UDP/TLS/RTP/SAVP",
        "TCP/DTLS/RTP/SAVPF",
        "TCP/DTLS/RTP/SAVP",
        "RTP/SAVPF",
        "RTP/SAVP",
        "RTP/AVPF",
        "RTP/AVP",
    )
)
DATA_PROFILES = frozenset(("UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"))
_TALKING = (Direction.SENDRECV, Direction.SENDONLY, Direction.RECVONLY, Direction.INACTIVE)
_HEARING = (Direction.SENDRECV, Direction.RECVONLY, Direction.SENDONLY, Direction.INACTIVE)
_LARGEST_SCTP_PORT = 65_535
_ANY_SIZE = 1 << 62
_DIRECTIONS = frozenset(direction.value for direction in Direction)


def parse_offer_untrusted(text: str | bytes, *, hears: bool = False, audio_mid: str = "") -> OfferedMedia:
    """Read an offer from a client; raises only SdpError.

    Of several audio sections one is taken: that of ``audio_mid`` (in a call that runs), else the one with the most to
    say, or to a player (``hears``) the one with the most to hear.
    """
    session, sections = cut_untrusted(text)
    if session.has("ice-lite"):
        raise unsupported(
            "a=ice-lite",
            f"line {session.line_of('ice-lite')}: the offer is ice-lite, and so are we: nobody would send checks",
            rule="RFC 8445 section 6.1.1",
            instead="offer full ICE",
        )
    mids = [_mid(section) for section in sections]
    for index, mid in enumerate(mids):
        if mid and mid in mids[:index]:
            raise malformed(
                "a=mid",
                f"{sections[index].where} has the same a=mid as m-line {mids.index(mid)}",
                rule="RFC 5888 section 4",
                instead="give each m-line a name of its own",
            )
    taken = {
        index: payload_type for index in range(len(sections)) if (payload_type := _takes(sections[index])) is not None
    }
    if not taken:
        raise _no_audio(sections)
    groups = _groups(session, mids)
    order = _HEARING if hears else _TALKING
    index = min(
        taken,
        key=lambda one: (
            not audio_mid or mids[one] != audio_mid,
            order.index(_direction(session, sections[one])),
            not any(mids[one] in group for group in groups),
            one,
        ),
    )
    audio = sections[index]
    group = tuple(
        mid
        for mid in next((group for group in groups if mids[index] in group), ())
        if sections[mids.index(mid)].is_offered  # a tag in port 0 is none (RFC 9143 section 7.2)
    )
    shared = [sections[mids.index(mid)] for mid in group]
    believed = [*shared[:1], audio, *(section for section in shared[1:] if section is not audio)]
    require_mux(session, audio, shared)
    ufrag, pwd = read_credentials(session, believed)
    return OfferedMedia(
        sections=tuple(_section(section, mid, group) for section, mid in zip(sections, mids, strict=True)),
        audio=_audio(session, audio, mids[index], taken[index]),
        data=_data(shared),
        group=group,
        ice_ufrag=ufrag,
        ice_pwd=pwd,
        fingerprints=read_fingerprints(session, believed),
        setup=read_setup(session, believed),
    )


def _section(section: Attributes, mid: str, group: tuple[str, ...]) -> Section:
    rtpmap = first_rtpmap(section)
    shares = section.is_offered and bool(rtpmap) and section.protocol in RTP_PROFILES and mid in group
    return Section(section.kind, section.protocol, section.formats, mid, section.is_offered, rtpmap, shares)


def _mid(section: Attributes) -> str:
    mid = section.first("mid")
    if mid is None:
        return ""
    if not TOKEN.fullmatch(mid):
        raise malformed(
            "a=mid",
            f"a=mid in line {section.line_of('mid')} is not a token of at most 64 characters",
            rule="RFC 5888 section 4",
            instead="send for instance a=mid:0",
        )
    return mid


def _groups(session: Attributes, mids: list[str]) -> list[tuple[str, ...]]:
    """The BUNDLE groups, without what names no m-line."""
    groups = []
    for value in session.all("group"):
        semantics, *names = value.split() or [""]
        if semantics.upper() == "BUNDLE":
            groups.append(tuple(name for name in dict.fromkeys(names) if name in mids))
    return groups


def _takes(section: Attributes) -> int | None:
    """The payload type of Opus in a section that we could take."""
    if section.kind != "audio" or not section.is_offered or section.protocol not in RTP_PROFILES:
        return None
    return find_opus(section)


def _no_audio(sections: list[Attributes]) -> SdpError:
    audio = [section for section in sections if section.kind == "audio" and section.is_offered]
    if not audio:
        return unsupported(
            "m=audio",
            "the offer has no audio section that is not rejected (port 0)",
            rule="RFC 3264 section 6",
            instead="add an audio track or an audio transceiver before createOffer",
        )
    right = [section for section in audio if section.protocol in RTP_PROFILES]
    if not right:
        return unsupported(
            "m=audio",
            f"{audio[0].where} has the profile {audio[0].protocol}",
            rule="RFC 9429 section 5.1.2",
            instead="send m=audio 9 UDP/TLS/RTP/SAVPF",
        )
    first = right[0]
    if {"0", "8"} & set(first.formats.split()):
        return unsupported(
            "a=rtpmap",
            f"{first.where} offers G.711 and no opus/48000/2",
            rule="RFC 7874 section 3",
            instead="send a=rtpmap:111 opus/48000/2 beside it; G.711 alone is not served (docs/clients.md)",
        )
    return unsupported(
        "a=rtpmap",
        f"{first.where} offers no opus/48000/2",
        rule="RFC 7587 section 7",
        instead="send a=rtpmap:111 opus/48000/2, with 111 among the formats of the m-line",
    )


def _direction(session: Attributes, section: Attributes) -> Direction:
    """Of the section, else of the session, else both ways (RFC 8866 section 6.7)."""
    for speaker in (section, session):
        for _, name, _ in speaker.lines:
            if name in _DIRECTIONS:
                return Direction(name)
    return Direction.SENDRECV


def _audio(session: Attributes, section: Attributes, mid: str, payload_type: int) -> OfferedAudio:
    telephone_event, hz = find_telephone_event(section, payload_type)
    extension_id, extension_direction = find_mid_extension(session, section)
    return OfferedAudio(
        index=section.index,
        mid=mid,
        payload_type=payload_type,
        direction=_direction(session, section),
        wishes=read_wishes(session, section, payload_type),
        telephone_event_type=telephone_event,
        telephone_event_hz=hz,
        mid_extension_id=extension_id,
        mid_extension_direction=extension_direction,
        mux_only=section.has("rtcp-mux-only"),
        reduced_size=section.has("rtcp-rsize"),
    )


def _data(shared: list[Attributes]) -> OfferedData | None:
    """The first of the group, in its order: the tagged one before others (RFC 8841; before it the port was the format)."""
    for section in shared:
        if section.kind != "application" or section.protocol not in DATA_PROFILES:
            continue
        old = re.fullmatch(r"[0-9]{1,5}", section.formats)
        if old:
            port = int(section.formats)
            if port > _LARGEST_SCTP_PORT or not all(
                rest.split()[:1] == ["webrtc-datachannel"] for _, rest in section.by_format("sctpmap")
            ):
                continue
        elif section.formats == "webrtc-datachannel":
            port = _number(section, "sctp-port", 5_000, _LARGEST_SCTP_PORT)
        else:
            continue
        if not port:
            continue  # RFC 8841 section 5.1: closed
        size = _number(section, "max-message-size", 65_536, _ANY_SIZE) or _ANY_SIZE  # RFC 8841 section 6.1: 0 is any
        return OfferedData(section.index, _mid(section), port, size, with_sctpmap=bool(old))
    return None


def _number(section: Attributes, name: str, default: int, largest: int) -> int:
    value = section.first(name)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", value) or int(value) > largest:
        raise malformed(
            f"a={name}",
            f"a={name} in line {section.line_of(name)} is not a number up to {largest}",
            rule=f"RFC 8841 section {5 if name == 'sctp-port' else 6}",
            instead=f"send a={name}:{default}",
        )
    return int(value)
