"""Offers put together from parts, and answers held against the rules that every stack reads them by.

An answer is read by our own strict reader, by the client of `voicefleet call`, and by aiortc's; Pion's rule about formats
is checked by hand (it looks up each payload type, and knows only 0 and 8 without an rtpmap).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiortc.sdp import SessionDescription

from tests.support.offers import DIGEST
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.answer import Answer, build_answer
from voicefleet_dataplane.wire.sdp.client import parse_answer_untrusted
from voicefleet_dataplane.wire.sdp.lines import Attributes, cut_untrusted
from voicefleet_dataplane.wire.sdp.model import Fingerprint, OfferedMedia, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted

ANSWER = Answer(
    session_id=7,
    ice_ufrag="U" * 24,
    ice_pwd="P" * 32,
    fingerprint=Fingerprint("sha-256", b"\x01" * 32),
    setup=SetupRole.ACTIVE,
    candidates=[Address("192.0.2.1", 3478)],
    ssrc=4711,
    cname="vf",
    stream_id="agent",
    track_id="voice",
)
PWD = "0123456789abcdefghijkl"
OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
VP8 = ("a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000")


def transport(ufrag: str = "tRy1", *, setup: str = "actpass", digest: str = DIGEST) -> tuple[str, ...]:
    """The attributes that a section has of its transport."""
    return (f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{PWD}", f"a=fingerprint:sha-256 {digest}", f"a=setup:{setup}")


@dataclass(frozen=True)
class Part:
    """One section."""

    m: str
    mid: str = ""
    lines: Sequence[str] = ()
    transport: Sequence[str] = field(default_factory=transport)

    def without(self, prefix: str) -> "Part":
        """The same without the lines that begin so."""
        return replace(self, lines=tuple(line for line in self.lines if not line.startswith(prefix)))


def audio(mid: str = "0", *lines: str, m: str = "audio 9 UDP/TLS/RTP/SAVPF 111", **kw: Sequence[str]) -> Part:
    """An audio section with Opus, sendrecv where no line says otherwise."""
    return Part(m, mid, ("a=rtcp-mux", *OPUS, *lines), **kw)


def video(mid: str = "1", *lines: str, m: str = "video 9 UDP/TLS/RTP/SAVPF 96 97", **kw: Sequence[str]) -> Part:
    """A video section."""
    return Part(m, mid, ("a=rtcp-mux", *VP8, *lines), **kw)


def data(
    mid: str = "2", *lines: str, m: str = "application 9 UDP/DTLS/SCTP webrtc-datachannel", **kw: Sequence[str]
) -> Part:
    """A data channel section."""
    return Part(m, mid, lines, **kw)


def offer(*parts: Part, bundle: str = "", session: Sequence[str] = ()) -> str:
    """The text. ``bundle``: the mids of the group; empty: no group."""
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        *([f"a=group:BUNDLE {bundle}"] if bundle else []),
        *session,
    ]
    for part in parts:
        lines += [f"m={part.m}", "c=IN IP4 0.0.0.0", *([f"a=mid:{part.mid}"] if part.mid else [])]
        lines += [*part.transport, *part.lines]
    return "\r\n".join([*lines, ""])


def answered(text: str, *, keeps: bool = False) -> tuple[OfferedMedia, list[Attributes], str]:
    """Answer an offer and hold the answer against the rules: what was understood, the answer's sections, its group."""
    understood = parse_offer_untrusted(text)
    assert understood == parse_offer_untrusted(text.encode())
    built = build_answer(understood, _with(keeps))
    offered_session, offered = cut_untrusted(text)
    session, sections = cut_untrusted(built)
    group = (session.first("group") or "").removeprefix("BUNDLE ").split()
    assert len(sections) == len(offered)
    for theirs, ours in zip(offered, sections, strict=True):
        _check_section(theirs, ours, group)
    _check_group(offered_session, offered, sections, group)
    assert parse_answer_untrusted(built).ufrag == ANSWER.ice_ufrag
    read = SessionDescription.parse(built)
    assert [(one.kind, one.port, one.profile) for one in read.media] == [
        (one.kind, one.port, one.protocol) for one in sections
    ]
    return understood, sections, " ".join(group)


def _with(keeps: bool) -> Answer:
    return Answer(**{name: getattr(ANSWER, name) for name in ANSWER.__slots__} | {"keeps": keeps})


def _check_section(theirs: Attributes, ours: Attributes, group: list[str]) -> None:
    assert (ours.kind, ours.protocol) == (theirs.kind, theirs.protocol)
    assert ours.first("mid") == theirs.first("mid")
    formats = ours.formats.split()
    assert formats, "RFC 3264 section 6: a rejected line has a format too"
    if "RTP/" in ours.protocol:
        assert set(formats) <= {*theirs.formats.split(), "0"}
        mapped = {value.split()[0] for value in ours.all("rtpmap")}
        assert set(formats) <= mapped | {"0", "8"}, "Pion refuses formats without rtpmap"
    transport_lines = ("ice-ufrag", "ice-pwd", "fingerprint", "setup", "candidate", "end-of-candidates")
    assert {ours.has(name) for name in transport_lines} == {ours.port != 0}
    if ours.port == 0:
        assert ours.first("mid") not in group


def _check_group(session: Attributes, offered: list[Attributes], sections: list[Attributes], group: list[str]) -> None:
    accepted = [one.first("mid") for one in sections if one.port]
    if not group:
        assert len(accepted) == 1
        return
    assert sorted(group) == sorted(accepted)
    theirs = next(value.split()[1:] for value in session.all("group") if group[0] in value.split()[1:])
    live = [mid for mid in theirs if any(one.first("mid") == mid and one.is_offered for one in offered)]
    assert group == [mid for mid in live if mid in group], "the offerer's order"
    assert group[0] == live[0], "the offerer's tag (RFC 9143 section 7.3)"
