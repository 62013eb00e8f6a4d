"""The SDP answer of an ICE-lite endpoint with one transport (RFC 8829 section 5.3, RFC 8843, RFC 8839).

Owns the text. Does not own any value in it: ufrag, pwd, SSRC, fingerprint and candidates are given by the caller.
Invariants: every m-line of the offer is answered in its order, those that we do not take with port 0 (or inactive, for clients
that count their transceivers: a rejected one is gone from RTCPeerConnection.getTransceivers()); every accepted
section carries all candidates and says that no more will come. RFC 8843 section 7.1.3 wants them in the tagged section
alone; aiortc with max-bundle reads those of the last one, and browsers take repeated ones for what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.model import (
    Direction,
    Fingerprint,
    OfferedMedia,
    SdpError,
    SdpProblem,
    Section,
    SetupRole,
)

# RFC 8445 section 5.1.2.1: host candidates of component 1; the caller's order becomes the order of preference.
_HOST_TYPE_PREFERENCE = 126
MAX_MESSAGE_BYTES = 65_536
SCTP_PORT = 5_000


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
            raise SdpError(SdpProblem.UNSUPPORTED, f"a={offered}", "a player's offer is a=recvonly or a=sendrecv")
        return wanted
    if not ours.receives:
        raise SdpError(SdpProblem.UNSUPPORTED, f"a={offered}", "a publisher's offer is a=sendonly or a=sendrecv")
    return wanted if wanted is Direction.RECVONLY else ours


def refuse_partly(offer: OfferedMedia) -> None:
    """Raise SdpError when an m-line of the offer would be rejected (RFC 9725 section 4.4.3)."""
    taken = _accepted(offer)
    for index, section in enumerate(offer.sections):
        if index not in taken and section.offered:
            message = (
                f"m-line {index} ({section.kind}) cannot be taken: offer one audio track, and data channels if you like"
            )
            raise SdpError(SdpProblem.UNSUPPORTED, f"m={section.kind}", message)


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
            lines += [f"m={section.kind} 0 {section.protocol} {section.formats}", "c=IN IP4 0.0.0.0"]
            lines += [f"a=mid:{section.mid}"] if section.mid else []
            lines.append("a=inactive")
            continue
        if index == offer.audio.index:
            lines += _audio(offer, answer)
        elif offer.data is None or index != offer.data.index:
            lines += _kept(section, answer)
        else:
            lines += _data(offer, answer)
        lines += candidate_lines(answer.candidates)
    return "\r\n".join(lines) + "\r\n"


def bundle_mids(offer: OfferedMedia, *, keeps: bool = False) -> tuple[str, ...]:
    """The sections of the answer's bundle."""
    return tuple(offer.sections[index].mid for index in _accepted(offer, keeps=keeps)) if offer.bundled else ()


def _accepted(offer: OfferedMedia, *, keeps: bool = False) -> list[int]:
    taken = {offer.audio.index} | ({offer.data.index} if offer.data else set())
    if keeps:
        taken |= {index for index, section in enumerate(offer.sections) if section.rtpmap}
    return sorted(taken)


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
    lines += [f"a={direction}", f"a=rtpmap:{audio.payload_type} opus/48000/2"]
    if audio.fmtp:
        lines.append(f"a=fmtp:{audio.payload_type} {audio.fmtp}")
    if audio.telephone_event_type is not None:
        lines += [
            f"a=rtpmap:{audio.telephone_event_type} telephone-event/48000",
            f"a=fmtp:{audio.telephone_event_type} 0-15",
        ]
    if audio.ptime_ms is not None:
        lines.append(f"a=ptime:{audio.ptime_ms}")
    if audio.mid_extension_id is not None:
        lines.append(f"a=extmap:{audio.mid_extension_id} urn:ietf:params:rtp-hdrext:sdes:mid")
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
    payload_type = section.rtpmap.split(" ", 1)[0]
    lines = [f"m={section.kind} {port} {section.protocol} {payload_type}", connection]
    lines += _mid_lines(section.mid) + _transport(answer)
    return [*lines, "a=rtcp-mux", "a=inactive", f"a=rtpmap:{section.rtpmap}"]


def _data(offer: OfferedMedia, answer: Answer) -> list[str]:
    assert offer.data is not None
    port, connection = _connection(answer)
    return [
        f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel",
        connection,
        *_mid_lines(offer.data.mid),
        *_transport(answer),
        f"a=sctp-port:{SCTP_PORT}",
        f"a=max-message-size:{MAX_MESSAGE_BYTES}",
    ]


def candidate_lines(candidates: Sequence[Address]) -> list[str]:
    """All of them, best first, and that no more will come."""
    return [_candidate(rank, address) for rank, address in enumerate(candidates)] + ["a=end-of-candidates"]


def _candidate(rank: int, address: Address) -> str:
    priority = (_HOST_TYPE_PREFERENCE << 24) | ((65_535 - rank) << 8) | 255
    return f"a=candidate:{rank + 1} 1 udp {priority} {address.host} {address.port} typ host"
