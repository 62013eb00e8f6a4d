"""The SDP answer of an ICE-lite endpoint with one transport (RFC 9429 section 5.3, RFC 9143, RFC 8839).

Owns the text. Does not own any value in it: ufrag, pwd, SSRC, fingerprint and candidates are given by the caller.
Invariants
- Every m-line of the offer is answered in its order and with its profile. One that we do not serve has port 0 and a single
  format with its rtpmap: Pion refuses formats without one. It stays in the transport, inactive, where the client counts its
  transceivers (a rejected one is gone from RTCPeerConnection.getTransceivers()), and where it is the one that the offerer
  has tagged: rejecting that would reject the whole bundle (RFC 9143 section 7.3.3).
- The bundle has the offerer's order, so its tag is the offerer's.
- Opus's parameters are our own wishes: each side says what it would like to receive (RFC 7587 section 7.1).
- Every accepted section carries all candidates and says that no more will come. RFC 9143 section 7.3 wants them in the tagged
  section alone; aiortc with max-bundle reads those of the last one, and browsers take repeated ones for what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.codecs import MID_EXTENSION
from voicefleet_dataplane.wire.sdp.model import (
    Direction,
    Fingerprint,
    OfferedData,
    OfferedMedia,
    SdpError,
    SdpProblem,
    Section,
    SetupRole,
)

# RFC 8445 section 5.1.2.1: host candidates of component 1; the caller's order becomes the order of preference.
_HOST_TYPE_PREFERENCE = 126
MAX_MESSAGE_BYTES = 262_144
SCTP_PORT = 5_000
_OPUS_WISHES = "minptime=10;useinbandfec=1"
_PTIME_MS = 20
_OLD_STREAMS = 1_024  # of sctpmap (draft-ietf-mmusic-sctp-sdp-05): what browsers wrote
WHY_NO_DATA = (
    "the offer's data channels cannot be taken, so this client gets no events: offer them as UDP/DTLS/SCTP webrtc-datachannel, "
    "with their mid beside the audio's in one a=group:BUNDLE (RFC 8841, RFC 9143)"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What we say about ourselves."""

    session_id: int
    ice_ufrag: str
    ice_pwd: str
    fingerprint: Fingerprint
    setup: SetupRole
    candidates: Sequence[Address]
    ssrc: int
    cname: str
    stream_id: str
    track_id: str
    direction: Direction | None = None  # of audio, seen by us; None: the offer's, mirrored
    keeps: bool = False  # media that we do not take stays in the transport, inactive
    version: int = 2  # RFC 8866 section 5.2: greater in each answer of a session


def choose_direction(offered: Direction, wanted: Direction | None) -> Direction:
    """Our direction. Raises SdpError when the offer leaves no room for what is wanted.

    SENDRECV wants to receive, and sends to whoever offers to listen.
    """
    ours = offered.reversed
    if wanted is None:
        return ours
    if wanted is Direction.SENDONLY:
        if not ours.sends:
            raise _one_way(offered, "a player listens", "send a=recvonly")
        return wanted
    if not ours.receives:
        raise _one_way(offered, "a publisher speaks", "send a=sendonly or a=sendrecv")
    return wanted if wanted is Direction.RECVONLY else ours


def _one_way(offered: Direction, what: str, instead: str) -> SdpError:
    what = f"the audio section is a={offered}, and {what}"
    return SdpError(SdpProblem.UNSUPPORTED, f"a={offered}", what, rule="RFC 3264 section 6.1", instead=instead)


def refuse_partly(offer: OfferedMedia) -> None:
    """Raise SdpError when an m-line of the offer would be rejected (RFC 9725 section 4.4.3)."""
    taken = {offer.audio.index} | ({offer.data.index} if offer.data else set())
    for index, section in enumerate(offer.sections):
        if index not in taken and section.offered:
            raise SdpError(
                SdpProblem.UNSUPPORTED,
                f"m={section.kind}",
                f"m-line {index} ({section.kind}) cannot be taken",
                rule="RFC 9725 section 4.4.3",
                instead="offer one audio track, and data channels if you like, in one BUNDLE group",
            )


def choose_setup(offered: SetupRole, *, prefer_active: bool) -> SetupRole:
    """Our role, RFC 5763 section 5: we choose only if the offer leaves the choice."""
    if offered is SetupRole.ACTPASS:
        return SetupRole.ACTIVE if prefer_active else SetupRole.PASSIVE
    return SetupRole.PASSIVE if offered is SetupRole.ACTIVE else SetupRole.ACTIVE


def build_answer(offer: OfferedMedia, answer: Answer) -> str:
    """The whole answer, lines ended by CRLF."""
    accepted = _accepted(offer, keeps=answer.keeps)
    lines = [
        "v=0",
        f"o=- {answer.session_id} {answer.version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
    ]
    mids = bundle_mids(offer, keeps=answer.keeps)
    if mids:
        lines.append("a=group:BUNDLE " + " ".join(mids))
    lines += ["a=ice-lite", f"a=msid-semantic: WMS {answer.stream_id}"]
    for index, section in enumerate(offer.sections):
        if index not in accepted:
            lines += _rejected(section)
            # Unknown attributes are ignored (RFC 8866 section 5.13): for the person who asks why the channel does not open.
            lines += [f"a=voicefleet-rejected:{WHY_NO_DATA}"] if index == offer.lost_data else []
            continue
        if index == offer.audio.index:
            lines += _audio(offer, answer)
        elif offer.data is not None and index == offer.data.index:
            lines += _data(section, offer.data, answer)
        else:
            lines += _kept(section, answer)
        lines += candidate_lines(answer.candidates)
    return "\r\n".join(lines) + "\r\n"


def bundle_mids(offer: OfferedMedia, *, keeps: bool = False) -> tuple[str, ...]:
    """The sections of the answer's bundle, the tagged one first."""
    accepted = {offer.sections[index].mid for index in _accepted(offer, keeps=keeps)}
    return tuple(mid for mid in offer.group if mid in accepted)


def _accepted(offer: OfferedMedia, *, keeps: bool) -> set[int]:
    taken = {offer.audio.index} | ({offer.data.index} if offer.data else set())
    for index, section in enumerate(offer.sections):
        if (keeps and section.shares) or (section.mid and section.mid in offer.group[:1]):
            taken.add(index)
    return taken


def _rejected(section: Section) -> list[str]:
    return [
        f"m={section.kind} 0 {section.protocol} {_one_format(section)}",
        "c=IN IP4 0.0.0.0",
        *_mid_lines(section.mid),
        "a=inactive",
        *_rtpmap_lines(section),
    ]


def _one_format(section: Section) -> str:
    if not section.is_rtp:
        return section.formats or "0"
    return section.rtpmap.split(" ", 1)[0] or "0"  # RFC 3264 section 6: it must be there, and means nothing


def _rtpmap_lines(section: Section) -> list[str]:
    return [f"a=rtpmap:{section.rtpmap}"] if section.is_rtp and section.rtpmap else []


def _transport(answer: Answer) -> list[str]:
    return [
        f"a=ice-ufrag:{answer.ice_ufrag}",
        f"a=ice-pwd:{answer.ice_pwd}",
        f"a=fingerprint:{answer.fingerprint}",
        f"a=setup:{answer.setup}",
    ]


def _mid_lines(mid: str) -> list[str]:
    return [f"a=mid:{mid}"] if mid else []


def _connection(answer: Answer) -> tuple[int, str]:
    first = answer.candidates[0]
    return first.port, f"c=IN {'IP6' if ':' in first.host else 'IP4'} {first.host}"


def _audio(offer: OfferedMedia, answer: Answer) -> list[str]:
    audio = offer.audio
    section = offer.sections[audio.index]
    port, connection = _connection(answer)
    formats = str(audio.payload_type)
    if audio.telephone_event_type is not None:
        formats += f" {audio.telephone_event_type}"
    lines = [f"m=audio {port} {section.protocol} {formats}", connection]
    lines += _mid_lines(audio.mid) + _transport(answer)
    direction = answer.direction or audio.direction.reversed
    lines += ["a=rtcp-mux"] + (["a=rtcp-mux-only"] if audio.mux_only else [])
    lines += ["a=rtcp-rsize"] if audio.reduced_size else []
    lines += [f"a={direction}", f"a=rtpmap:{audio.payload_type} opus/48000/2"]
    lines += [f"a=fmtp:{audio.payload_type} {_OPUS_WISHES}", f"a=ptime:{_PTIME_MS}"]
    if audio.telephone_event_type is not None:
        lines += [
            f"a=rtpmap:{audio.telephone_event_type} telephone-event/{audio.telephone_event_hz}",
            f"a=fmtp:{audio.telephone_event_type} 0-15",
        ]
    if audio.mid_extension_id is not None:
        way = Direction(audio.mid_extension_direction).reversed if audio.mid_extension_direction else ""
        lines.append(f"a=extmap:{audio.mid_extension_id}{way and '/'}{way} {MID_EXTENSION}")
    if not direction.sends:
        return lines
    # Browsers hand packets of an SSRC that no line announces, and that carries no MID, to nobody.
    lines += [
        f"a=msid:{answer.stream_id} {answer.track_id}",
        f"a=ssrc:{answer.ssrc} cname:{answer.cname}",
        f"a=ssrc:{answer.ssrc} msid:{answer.stream_id} {answer.track_id}",
    ]
    return lines


def _kept(section: Section, answer: Answer) -> list[str]:
    port, connection = _connection(answer)
    lines = [f"m={section.kind} {port} {section.protocol} {_one_format(section)}", connection]
    lines += _mid_lines(section.mid) + _transport(answer)
    lines += ["a=rtcp-mux"] if section.is_rtp else []
    return [*lines, "a=inactive", *_rtpmap_lines(section)]


def _data(section: Section, data: OfferedData, answer: Answer) -> list[str]:
    port, connection = _connection(answer)
    formats = str(SCTP_PORT) if data.with_sctpmap else "webrtc-datachannel"
    return [
        f"m=application {port} {section.protocol} {formats}",
        connection,
        *_mid_lines(data.mid),
        *_transport(answer),
        f"a=sctpmap:{SCTP_PORT} webrtc-datachannel {_OLD_STREAMS}" if data.with_sctpmap else f"a=sctp-port:{SCTP_PORT}",
        f"a=max-message-size:{MAX_MESSAGE_BYTES}",
    ]


def candidate_lines(candidates: Sequence[Address]) -> list[str]:
    """All of them, best first, and that no more will come."""
    return [_candidate(rank, address) for rank, address in enumerate(candidates)] + ["a=end-of-candidates"]


def _candidate(rank: int, address: Address) -> str:
    priority = (_HOST_TYPE_PREFERENCE << 24) | ((65_535 - rank) << 8) | 255
    return f"a=candidate:{rank + 1} 1 udp {priority} {address.host} {address.port} typ host"
