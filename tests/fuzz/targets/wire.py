"""Packets as they come from the network: STUN, SPP, RTP, RTCP, DTLS records, Opus."""

import contextlib
import struct

from tests.fuzz.target import Target
from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import SppError, decode_spp, encode_spp
from voicefleet_dataplane.core.call.dtls_assembly import Assembly
from voicefleet_dataplane.media.dtmf import DtmfReceiver
from voicefleet_dataplane.media.opus import OpusDecoder, OpusEncoder, OpusError
from voicefleet_dataplane.wire.demux import classify
from voicefleet_dataplane.wire.dtls_handshake import (
    client_hello_cookie,
    first_certificate,
    hello_random,
    parse_fragments,
    record_sequence,
    split_key_exchange,
    split_signature,
    verify_request_cookie,
)
from voicefleet_dataplane.wire.dtls_record import (
    client_hello_random,
    is_plausible_in_clear,
    parse_records,
    record_epoch,
)
from voicefleet_dataplane.wire.opus import LONGEST_PACKET_TICKS, parse_duration_ticks
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_bye, build_report, parse_rtcp
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp
from voicefleet_dataplane.wire.stun import (
    StunError,
    build_binding_error,
    build_binding_request,
    build_binding_success,
    parse_binding_request,
    parse_binding_response,
    peek_server_ufrag,
    verify_integrity,
)

CLIENT = Address("198.51.100.7", 40_000)
KEY = b"k" * 32
CHECK = build_binding_request(b"t" * 12, "A" * 24 + ":c1ie", KEY, use_candidate=True)
HELLO = (
    bytes.fromhex("16fefd0000000000000000003a0100002e000000000000002efefd") + bytes(32) + b"\0\0\0\x02\xc0\x2b\x01\0"
)
_READERS = (
    hello_random,
    client_hello_cookie,
    verify_request_cookie,
    first_certificate,
    split_key_exchange,
    split_signature,
)
DECODER = OpusDecoder(16_000)


def stun(data: bytes) -> None:
    ufrag = peek_server_ufrag(data)
    for parse in (parse_binding_request, parse_binding_response):
        with contextlib.suppress(StunError):
            message = parse(data)
            verify_integrity(message, KEY)
            if parse is parse_binding_request:
                assert ufrag in (None, message.server_ufrag)


def attributes(count: int, kind: int = 0x8022) -> bytes:
    body = struct.pack("!HH", kind, 0) * ((count - 20) // 4)
    return struct.pack("!HHI12s", 1, len(body) & 0xFFFF, 0x2112A442, b"t" * 12) + body


def rtcp(data: bytes) -> None:
    reports = parse_rtcp(data)
    if reports is not None:
        assert len(reports.blocks) <= len(data) // 24


def dtls(data: bytes) -> None:
    assembly = Assembly()
    for record in parse_records(data) or ():
        record_epoch(record)
        record_sequence(record)
        client_hello_random(record)
        for from_client in (True, False):
            is_plausible_in_clear(record, from_client=from_client)
        for fragment in parse_fragments(record):
            for message in assembly.add(fragment):
                for read in _READERS:
                    read(message.body)


def spp(data: bytes) -> None:
    with contextlib.suppress(SppError):
        client, relay = decode_spp(data)
        assert encode_spp(client, relay) == data[:38]


def opus(data: bytes) -> None:
    """As from a client: its length by the first bytes, then libopus itself."""
    ticks = parse_duration_ticks(data)
    if ticks is not None:
        assert 0 < ticks <= LONGEST_PACKET_TICKS
        with contextlib.suppress(OpusError):
            assert len(DECODER.decode(data)) <= LONGEST_PACKET_TICKS * 16_000 // 48_000 * 2
        with contextlib.suppress(OpusError):
            DECODER.recover(data, 960)


def rtp(data: bytes) -> None:
    classify(data)
    packet = parse_rtp(data)
    if packet is not None:
        DtmfReceiver().receive(packet)


_BLOCK = ReportBlock(77, 1, 2, 3, 4, 5, 6)
_ENCODER = OpusEncoder(16_000)
TARGETS = [
    Target(
        "stun",
        stun,
        [CHECK, build_binding_success(b"t" * 12, CLIENT, KEY), build_binding_error(b"t" * 12, 403, KEY)],
        words=[struct.pack("!H", kind) for kind in (6, 8, 0x1C, 0x20, 0x24, 0x25, 0x8028, 0x802A, 0x8022)],
        shapes={"empty attributes": attributes, "the same attribute": lambda size: attributes(size, 6)},
    ),
    Target("spp", spp, [encode_spp(CLIENT, Address("2001:db8::1", 3479)) + CHECK]),
    Target("rtp", rtp, [build_rtp(RtpPacket(True, 111, 1, 2, 3, b"\x48opus"), b"\xbe\xde\0\1\x10\x30\0\0")]),
    Target(
        "rtcp",
        rtcp,
        [build_report(SenderInfo(1, 2, 3, 4, 5), (_BLOCK, _BLOCK), "cname"), build_bye(1, "cname")],
        shapes={
            "empty packets": lambda size: b"\x80\xcc\0\0" * (size // 4),
            "byes": lambda size: (b"\x9f\xcb\0\x1f" + bytes(124)) * (size // 128),
            "blocks": lambda size: (struct.pack("!BBHI", 0x81, 201, 7, 1) + bytes(24)) * (size // 32),
        },
    ),
    Target(
        "dtls",
        dtls,
        [HELLO, b"\x17\xfe\xfd\0\x01" + bytes(6) + b"\0\x20" + bytes(32), HELLO[:13] + HELLO],
        shapes={"empty records": lambda size: (b"\x16\xfe\xfd" + bytes(10)) * (size // 13)},
    ),
    Target("opus", opus, [_ENCODER.encode(bytes(640)), b"\x48\0", b"\x03\x83", b"\xff\x3f" + bytes(80)], tries=500),
]
