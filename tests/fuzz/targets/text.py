"""Text from callers, kube-apiserver's clients and hooks: SDP, forms, session objects, selectors, JSON."""

import contextlib

from tests.fuzz.target import Target
from tests.fuzz.targets.contract import text
from tests.support.offers import CHROMIUM, with_video_first
from voicefleet_contract.addresses import Address
from voicefleet_contract.outside import OutsideError, decode_base64, decode_base64_url, parse_json, parse_number
from voicefleet_contract.session_object import SessionObjectError, parse_session_untrusted, write_session
from voicefleet_dataplane.core.call.negotiation import Description, Terms, agree, agree_again
from voicefleet_dataplane.media.pipeline.chat import EventStream, HookError, parse_answer, parse_chunk, parse_message
from voicefleet_dataplane.media.pipeline.sentences import SentenceSplitter
from voicefleet_dataplane.wire.form import FormError, parse_form_untrusted
from voicefleet_dataplane.wire.sdp.client import AnswerError, parse_answer_untrusted
from voicefleet_dataplane.wire.sdp.fragment import FragmentError, parse_fragment_untrusted
from voicefleet_dataplane.wire.sdp.model import Fingerprint, SdpError, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted
from voicefleet_operator.sessions_api.pages import Place, decode_continue, encode_continue
from voicefleet_operator.sessions_api.selectors import parse_query
from voicefleet_operator.sessions_api.status import StatusError

FINGERPRINT = Fingerprint("sha-256", bytes(32))
KEEPING = Terms(keeps=True)
FORM_TYPE = b"multipart/form-data; boundary=x\n"
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nv=0\r\n'
    b'--x\r\nContent-Disposition: form-data; name="session"\r\nContent-Type: application/json\r\n\r\n{}\r\n--x--\r\n'
)
FRAGMENT = b"a=ice-ufrag:aB3+\r\na=ice-pwd:0123456789abcdefghijkl+/\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"


def offer(data: bytes) -> None:
    """An offer, our answer to it, and the same offer once more, as a client renegotiates."""
    try:
        offered = parse_offer_untrusted(data)
    except SdpError:
        return
    for terms in (Terms(), KEEPING):
        description = Description(1, FINGERPRINT, SetupRole.PASSIVE, 77, "c", terms, offered.fingerprints)
        with contextlib.suppress(SdpError):
            agreed = agree(offered, terms, call_id="c", request_id="r", cname="n")
            answer = description.answer(offered, "u" * 24, "p" * 32, [Address("192.0.2.1", 3478)])
            assert answer.isprintable() or set(answer) - {"\r", "\n"}
            agree_again(agreed, description, offered)
            with contextlib.suppress(AnswerError):
                parse_answer_untrusted(answer)


def answer(data: bytes) -> None:
    with contextlib.suppress(AnswerError):
        parse_answer_untrusted(text(data))


def fragment(data: bytes) -> None:
    with contextlib.suppress(FragmentError):
        parse_fragment_untrusted(data)


def form(data: bytes) -> None:
    """The header, a line end, the body."""
    header, _, body = data.partition(b"\n")
    with contextlib.suppress(FormError):
        parse_form_untrusted(header.decode("latin-1"), body, frozenset({"sdp", "session"}))


def session(data: bytes) -> None:
    with contextlib.suppress(SessionObjectError):
        assert parse_session_untrusted(write_session(parse_session_untrusted(data))) is not None


def outside(data: bytes) -> None:
    for read in (
        lambda: parse_json(data, 1 << 16),
        lambda: parse_json(text(data), 1 << 16),
        lambda: parse_number(text(data)),
        lambda: decode_base64(text(data), 1 << 16),
        lambda: decode_base64_url(text(data), 1 << 16),
    ):
        with contextlib.suppress(OutsideError):
            read()


def selector(data: bytes) -> None:
    labels, _, fields = text(data).partition("\n")
    with contextlib.suppress(StatusError):
        parse_query(labels, fields, "voice")
    with contextlib.suppress(StatusError):
        decode_continue(text(data))


def hook(data: bytes) -> None:
    """A hook's answer: whole, as a chunk, and as a stream in pieces of seven bytes."""
    for read in (parse_answer, parse_chunk, parse_message):
        with contextlib.suppress(HookError):
            read(data)
    stream, splitter = EventStream(), SentenceSplitter()
    with contextlib.suppress(HookError):
        for at in range(0, len(data), 7):
            for event in stream.push(data[at : at + 7]):
                parse_chunk(event)
    splitter.push(data.decode(errors="replace"))
    splitter.flush()


_OFFER = CHROMIUM.encode()
_JSON = (b"{", b"[", b'"', b"null", b"1e999", b"NaN", b"\\ud800", b"true", b"9" * 30, b"e9", b":", b",")
_SDP = tuple(f"a={name}\r\n".encode() for name in (
    "group:", "group:BUNDLE", "mid:", "rtcp-mux", "ice-lite", "setup:active", "sendonly", "fmtp:111 usedtx=1",
    "rtpmap:110 telephone-event/8000", "extmap:14 urn:ietf:params:rtp-hdrext:sdes:mid", "bundle-only", "ssrc:1 cname:x",
    "max-message-size:0", "sctpmap:5000 webrtc-datachannel 1024", "crypto:1 x", "ptime:60", "rtcp:9",
))  # fmt: skip
_CHUNK = b'{"id":"t","choices":[{"delta":{"content":"Yes. No","tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}}]}'
TARGETS = [
    Target(
        "sdp_offer",
        offer,
        [_OFFER, with_video_first().encode()],
        words=(*_SDP, b"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", b"m=application 0 UDP/DTLS/SCTP x\r\n", "²".encode()),
        max_bytes=70_000,
        tries=600,
        shapes={
            "one line again": lambda size: _OFFER + b"a=rtpmap:1 telephone-event/48000\r\n" * (size // 34),
            "formats": lambda size: _OFFER.replace(b" 111 63", b" 2" * (size // 2) + b" 111 63"),
            "groups": lambda size: _OFFER.replace(
                b"a=extmap-allow", b"a=group:BUNDLE 0 1\r\n" * (size // 20) + b"a=x", 1
            ),
            "sections": lambda size: _OFFER + b"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:7\r\n" * (size // 42),
            "parameters": lambda size: _OFFER.replace(b"minptime=10", b"x;" * (size // 2)),
            "names of a group": lambda size: _OFFER.replace(b"BUNDLE 0 1", b"BUNDLE 0 1" + b" 2" * (size // 2)),
            "extensions": lambda size: _OFFER.replace(b"a=msid:", b"a=extmap:1 x\r\n" * (size // 14) + b"a=msid:"),
        },
    ),
    Target("sdp_answer", answer, [_OFFER, b"a=ice-ufrag:x\r\n"], words=_SDP, max_bytes=70_000, tries=300),
    Target(
        "sdp_fragment",
        fragment,
        [FRAGMENT],
        words=_SDP,
        max_bytes=20_000,
        shapes={"candidates": lambda size: FRAGMENT + b"a=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n" * (size // 43)},
    ),
    Target(
        "form",
        form,
        [FORM_TYPE + FORM, b'multipart/form-data; boundary="x y"; charset=utf-8\n' + FORM],
        words=[
            b"--x",
            b"--",
            b"\r\n\r\n",
            b"\r\n",
            b"name*=utf-8''a",
            b"name*0=s",
            b'name="sdp"',
            b"boundary=",
            b"=?utf-8?q?=ff?=",
        ],
        max_bytes=200_000,
        tries=500,
        shapes={
            "boundaries": lambda size: FORM_TYPE + b"\r\n--x" * (size // 5),
            "headers": lambda size: FORM_TYPE + b"--x\r\n" + b"A: b\r\n" * (size // 6) + b"\r\n\r\n--x--",
            "parameters": lambda size: (
                FORM_TYPE + b"--x\r\nContent-Disposition: form-data" + b"; a=b" * (size // 5) + b"\r\n\r\n"
            ),
            "of the header": lambda size: b"multipart/form-data" + b"; a=b" * (size // 5) + b"; boundary=x\n" + FORM,
            "quotes": lambda size: b'multipart/form-data; boundary="' + b'\\"' * (size // 2) + b"\n" + FORM,
        },
    ),
    Target(
        "session",
        session,
        [b'{"type":"realtime","instructions":"be brief","tools":[{"type":"function","name":"f","parameters":{}}]}'],
        words=_JSON,
        max_bytes=70_000,
        shapes={
            "deep": lambda size: b'{"a":' * (size // 5),
            "lists": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
            "keys": lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(size // 8)) + b"}",
        },
    ),
    Target("outside", outside, [b'{"a":[1.5e3,true]}', b"aGFsbG8=", b"1.5e3"], words=_JSON, max_bytes=10_000),
    Target(
        "selector",
        selector,
        [
            b"voicefleet.dev/pool=agents,voicefleet.dev/node notin (a, b),!x\nspec.pool=agents,status.state!=ended",
            encode_continue(9, Place(1, 2, "rtc_1")).encode(),
        ],
        words=[b" in (", b")", b"!", b"==", b"!=", b",", b"metadata.name=", b"W1tb", "²".encode(), b"\\,"],
        max_bytes=20_000,
        shapes={
            "commas": lambda size: b"," * size,
            "sets": lambda size: b"voicefleet.dev/pool in (" + b"a," * (size // 2) + b"b)",
            "open": lambda size: b"voicefleet.dev/pool in (" * (size // 24),
            "blanks": lambda size: b"a" + b" " * size + b"b",
            "fields": lambda size: b"\n" + b"spec.pool=a," * (size // 12),
            "a key": lambda size: b"a-" * (size // 2) + b"=",
        },
    ),
    Target(
        "hook",
        hook,
        [_CHUNK, b'{"choices":[{"message":{"content":"Yes."}}]}', b"data: " + _CHUNK + b"\n\ndata: [DONE]\n\n"],
        words=(*_JSON, b"data:", b"\n\n", b"\r\n", b"e.g.", b"Mr. ", b". "),
        max_bytes=50_000,
        tries=500,
        steps_per_byte=1_500,
        shapes={
            "one long line": lambda size: b"data:" + b"x" * size,
            "many lines": lambda size: b"data:\n" * (size // 6),
            "line ends": lambda size: b"\r\n" * (size // 2),
            "abbreviations": lambda size: b"e.g. " * (size // 5),
            "dots": lambda size: b"." * size,
            "calls": lambda size: b'{"choices":[{"message":{"tool_calls":[' + b"{}," * (size // 3) + b"{}]}}]}",
        },
    ),
]
