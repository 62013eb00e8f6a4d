"""The other side of SDP: the offer of `voicefleet call`, and what it needs of an answer. One Opus stream, no trickle."""

import re
from dataclasses import dataclass

from voicefleet_contract.addresses import Address, normalise
from voicefleet_contract.outside import decode_hex, parse_integer
from voicefleet_dataplane.wire.sdp.model import Fingerprint

OPUS_PAYLOAD_TYPE = 111
_MAX_DIGEST_BYTES = 64
_CANDIDATE = re.compile(
    r"^a=candidate:\S+ 1 udp [0-9]+ (\S+) ([0-9]+) typ host", re.MULTILINE | re.IGNORECASE | re.ASCII
)


class AnswerError(ValueError):
    """The answer lacks what a client needs; the text names it."""


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """An answer as a client uses it. ``we_are_dtls_client`` when the answerer is passive."""

    ufrag: str
    password: str
    fingerprint: Fingerprint
    we_are_dtls_client: bool
    candidates: tuple[Address, ...]


def build_offer(session_id: int, ufrag: str, password: str, fingerprint: Fingerprint, ssrc: int) -> str:
    """Return an offer of one sendrecv Opus stream (RFC 8829 §5.2)."""
    lines = (
        "v=0",
        f"o=- {session_id} 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=msid-semantic: WMS *",
        f"m=audio 9 UDP/TLS/RTP/SAVPF {OPUS_PAYLOAD_TYPE}",
        "c=IN IP4 0.0.0.0",
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        f"a=fingerprint:{fingerprint}",
        "a=setup:actpass",
        "a=mid:0",
        "a=sendrecv",
        "a=rtcp-mux",
        f"a=rtpmap:{OPUS_PAYLOAD_TYPE} opus/48000/2",
        f"a=fmtp:{OPUS_PAYLOAD_TYPE} minptime=10;useinbandfec=1",
        f"a=ssrc:{ssrc} cname:voicefleet-call",
    )
    return "".join(line + "\r\n" for line in lines)


def parse_answer_untrusted(text: str) -> ClientAnswer:
    """Return what a client needs. Raises AnswerError only."""
    try:
        algorithm, digest = _only(text, "fingerprint").split(" ", 1)
        found = _CANDIDATE.findall(text)
        candidates = tuple(dict.fromkeys(Address(normalise(host), parse_integer(port, 65_535)) for host, port in found))
        fingerprint = Fingerprint(algorithm.lower(), decode_hex(digest.replace(":", ""), _MAX_DIGEST_BYTES))
    except ValueError as error:
        raise AnswerError(f"the answer is malformed: {error}") from None
    if not candidates:
        raise AnswerError("the answer has no UDP host candidate: no relay is advertised")
    passive = _only(text, "setup") == "passive"
    return ClientAnswer(_only(text, "ice-ufrag"), _only(text, "ice-pwd"), fingerprint, passive, candidates)


def _only(text: str, name: str) -> str:
    found = re.search(rf"^a={name}:(.+?)\s*$", text, re.MULTILINE)
    if found is None:
        raise AnswerError(f"the answer has no a={name}")
    return found.group(1)
