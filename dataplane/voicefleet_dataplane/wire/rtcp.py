"""RTCP (RFC 3550 section 6): sender and receiver reports, CNAME and BYE; everything else in a compound is stepped over.

    SR:  |V=2|P|  RC   |  PT=200  | length |  SSRC of sender
         |  NTP timestamp (64)  |  RTP timestamp  |  packet count  |  octet count  |  RC report blocks
    RR:  |V=2|P|  RC   |  PT=201  | length |  SSRC of sender |  RC report blocks
    block: SSRC | fraction lost (8) cumulative lost (24, signed) | highest sequence | jitter | LSR | DLSR

Owns the bytes of clear compound packets. Does not own when to report, or the numbers in a report (core/call/streams.py).
"""

import struct
from dataclasses import dataclass

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
BYE = 203

_HEADER = struct.Struct("!BBH")
_SENDER_INFO = struct.Struct("!IQIII")
_BLOCK = struct.Struct("!IIIIII")
_CNAME_ITEM = 1


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What a receiver says about one SSRC. Jitter in RTP timestamp units, `delay_since` in 1/65536 s."""

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    last_report: int
    delay_since: int


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What a sender says of its own stream; `ntp` is the 64-bit NTP timestamp."""

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    payload_bytes: int

    @property
    def middle_ntp(self) -> int:
        """The 32 bits that a report block repeats as LSR."""
        return (self.ntp >> 16) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Reports:
    """All that we read out of one compound packet."""

    senders: tuple[SenderInfo, ...]
    blocks: tuple[ReportBlock, ...]
    byes: tuple[int, ...]


def parse_rtcp(compound: bytes) -> Reports | None:
    """The reports of a clear compound packet, or None when a length in it does not add up."""
    senders: list[SenderInfo] = []
    blocks: list[ReportBlock] = []
    byes: list[int] = []
    offset = 0
    while offset < len(compound):
        if len(compound) - offset < 4:
            return None
        first, packet_type, words = _HEADER.unpack_from(compound, offset)
        end = offset + 4 + 4 * words
        if first >> 6 != 2 or end > len(compound):
            return None
        count = first & 0x1F
        body = offset + 4
        if packet_type == SENDER_REPORT:
            if end - body < _SENDER_INFO.size + count * _BLOCK.size:
                return None
            senders.append(SenderInfo(*_SENDER_INFO.unpack_from(compound, body)))
            blocks.extend(_parse_blocks(compound, body + _SENDER_INFO.size, count))
        elif packet_type == RECEIVER_REPORT:
            if end - body < 4 + count * _BLOCK.size:
                return None
            blocks.extend(_parse_blocks(compound, body + 4, count))
        elif packet_type == BYE:
            if end - body < 4 * count:
                return None
            byes.extend(struct.unpack_from(f"!{count}I", compound, body))
        offset = end
    return Reports(tuple(senders), tuple(blocks), tuple(byes))


def _parse_blocks(compound: bytes, offset: int, count: int) -> list[ReportBlock]:
    blocks = []
    for index in range(count):
        ssrc, lost, highest, jitter, last_report, delay = _BLOCK.unpack_from(compound, offset + index * _BLOCK.size)
        cumulative = lost & 0xFFFFFF
        if cumulative & 0x800000:
            cumulative -= 1 << 24
        blocks.append(ReportBlock(ssrc, lost >> 24, cumulative, highest, jitter, last_report, delay))
    return blocks


def build_report(sender: SenderInfo, blocks: tuple[ReportBlock, ...], cname: str) -> bytes:
    """One compound: SR with the blocks (or RR when we have sent nothing yet), then SDES with our CNAME (section 6.1)."""
    packed = b"".join(
        _BLOCK.pack(
            block.ssrc,
            block.fraction_lost << 24 | max(-0x800000, min(0x7FFFFF, block.cumulative_lost)) & 0xFFFFFF,
            block.highest_sequence,
            block.jitter,
            block.last_report,
            block.delay_since,
        )
        for block in blocks
    )
    if sender.packets:
        body = (
            _SENDER_INFO.pack(
                sender.ssrc,
                sender.ntp,
                sender.rtp_timestamp,
                sender.packets & 0xFFFFFFFF,
                sender.payload_bytes & 0xFFFFFFFF,
            )
            + packed
        )
        packet_type = SENDER_REPORT
    else:
        body = sender.ssrc.to_bytes(4) + packed
        packet_type = RECEIVER_REPORT
    report = _HEADER.pack(0x80 | len(blocks), packet_type, len(body) // 4) + body
    return report + _build_cname(sender.ssrc, cname)


def build_bye(ssrc: int, cname: str) -> bytes:
    """An empty RR, the CNAME and a BYE: how a sender leaves (section 6.6)."""
    report = _HEADER.pack(0x80, RECEIVER_REPORT, 1) + ssrc.to_bytes(4)
    return report + _build_cname(ssrc, cname) + _HEADER.pack(0x81, BYE, 1) + ssrc.to_bytes(4)


def _build_cname(ssrc: int, cname: str) -> bytes:
    text = cname.encode()[:255]
    chunk = ssrc.to_bytes(4) + bytes((_CNAME_ITEM, len(text))) + text + b"\0"
    chunk += bytes(-len(chunk) % 4)
    return _HEADER.pack(0x81, SOURCE_DESCRIPTION, len(chunk) // 4) + chunk
