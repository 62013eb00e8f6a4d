"""What an offer and our answer settle, for a new call and for one that runs.

Owns: what a caller's interface asks of an answer (Terms), what we say of ourselves in each answer of a session (Description),
and which later offers a running call can take. Does not own: SDP text (wire/sdp/offer, wire/sdp/answer), sessions, credentials.
Invariant: a later offer changes what it may or nothing at all: SdpError is raised before anything moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.rtp import build_mid_extension
from voicefleet_dataplane.wire.sdp.answer import (
    Answer,
    build_answer,
    bundle_mids,
    choose_direction,
    refuse_partly,
)
from voicefleet_dataplane.wire.sdp.model import (
    NO_WISHES,
    Direction,
    Fingerprint,
    OfferedMedia,
    OpusWishes,
    SdpError,
    SdpProblem,
    SetupRole,
)

_OTHER_ROLE = {SetupRole.ACTIVE: SetupRole.PASSIVE, SetupRole.PASSIVE: SetupRole.ACTIVE}
STREAM_ID, TRACK_ID = "voicefleet", "agent"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the interface that a caller came through asks of the answer, beside what the offer says."""

    direction: Direction | None = None  # ours, of audio; None: the offer's, mirrored
    whole: bool = False  # refuse an offer of which a part would be rejected
    keeps: bool = False  # media that we do not take stays in the answer, inactive
    joins: bool = False  # it hears a call that runs here: taken while draining too, and as silent as it likes


@dataclass(frozen=True, slots=True)
class Agreed:
    """What offer and answer settled."""

    call_id: str
    request_id: str
    payload_type: int
    telephone_event_type: int | None
    client_receives: bool
    with_data: bool
    sctp_port: int
    max_message_bytes: int
    mid_extension: bytes
    cname: str
    region: str
    relay: str
    mid: str = ""
    mids: tuple[str, ...] = ()  # of the answer's bundle
    wishes: OpusWishes = NO_WISHES  # the client's
    telephone_event_hz: int = 48_000
    client_sends: bool = True
    lost_data: bool = False  # data channels were offered where we cannot take them: no events reach the client


@dataclass(slots=True)
class Description:
    """What each of our answers says of a session."""

    session_id: int
    fingerprint: Fingerprint
    setup: SetupRole
    ssrc: int
    cname: str
    terms: Terms
    fingerprints: tuple[Fingerprint, ...]  # the client's
    version: int = 1

    def answer(self, offer: OfferedMedia, ufrag: str, pwd: str, candidates: Sequence[Address]) -> str:
        """The next answer."""
        self.version += 1
        return build_answer(
            offer,
            Answer(
                session_id=self.session_id,
                ice_ufrag=ufrag,
                ice_pwd=pwd,
                fingerprint=self.fingerprint,
                setup=self.setup,
                candidates=candidates,
                ssrc=self.ssrc,
                cname=self.cname,
                stream_id=STREAM_ID,
                track_id=TRACK_ID,
                direction=choose_direction(offer.audio.direction, self.terms.direction),
                keeps=self.terms.keeps,
                version=self.version,
            ),
        )


def agree(offer: OfferedMedia, terms: Terms, *, call_id: str, request_id: str, cname: str) -> Agreed:
    """What the answer to a first offer settles. Raises SdpError for one that does not fit the terms."""
    if terms.whole:
        refuse_partly(offer)
    blank = Agreed(call_id, request_id, 0, None, False, False, 0, 0, b"", cname, "", "")
    return _fill(blank, offer, terms)


def agree_again(agreed: Agreed, description: Description, offer: OfferedMedia) -> Agreed:
    """What the answer to a later offer settles. Raises SdpError for one that needs another peer connection."""
    if set(offer.fingerprints) != set(description.fingerprints):
        raise _refused(
            "a=fingerprint",
            "another certificate than in the offer before",
            "RFC 8842 section 5.5",
            "keep the peer connection, or place a new call for another one (Pipecat: with restart_pc)",
        )
    if offer.audio.mid != agreed.mid:
        raise _refused(
            "a=mid",
            f"the audio section is not {agreed.mid!r}, as it was in the offer before",
            "RFC 9429 section 5.2.2",
            "keep its a=mid and offer it on",
        )
    if offer.setup not in (SetupRole.ACTPASS, _OTHER_ROLE[description.setup]):
        raise _refused(
            "a=setup",
            f"a=setup:{offer.setup} turns the DTLS roles around",
            "RFC 8842 section 5.5",
            "send a=setup:actpass",
        )
    if agreed.with_data and (offer.data is None or offer.data.sctp_port != agreed.sctp_port):
        raise _refused(
            "m=application",
            "the data channels of the offer before are gone, or on another SCTP port",
            "RFC 8841 section 10",
            "offer their m-line on, or place a new call",
        )
    if description.terms.whole:
        refuse_partly(offer)
    return _fill(agreed, offer, description.terms)


def _fill(agreed: Agreed, offer: OfferedMedia, terms: Terms) -> Agreed:
    audio, data = offer.audio, offer.data
    return replace(
        agreed,
        payload_type=audio.payload_type,
        telephone_event_type=audio.telephone_event_type,
        client_receives=choose_direction(audio.direction, terms.direction).sends,
        client_sends=audio.direction.sends,
        with_data=data is not None,
        sctp_port=data.sctp_port if data else 0,
        max_message_bytes=data.max_message_bytes if data else 0,
        mid_extension=build_mid_extension(audio.mid_extension_id or 0, audio.mid),
        mid=audio.mid,
        mids=bundle_mids(offer, keeps=terms.keeps),
        wishes=audio.wishes,
        telephone_event_hz=audio.telephone_event_hz,
        lost_data=offer.lost_data is not None,
    )


def _refused(field: str, what: str, rule: str, instead: str) -> SdpError:
    return SdpError(SdpProblem.UNSUPPORTED, field, what, rule=rule, instead=instead)
