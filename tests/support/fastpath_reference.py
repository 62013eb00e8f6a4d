"""What the fast path must do with a frame, said once more in Python: slow, and from the RFCs.

A frame is parsed whole here, rewritten as fields, and built again with checksums from scratch, where the program patches
bytes and updates sums; so both agree only if both are right.
"""

import ipaddress
import struct
from typing import NamedTuple

from tests.support.frames import checksum
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.fastpath.maps import Counter, Ends, How


class Expected(NamedTuple):
    sent: bool  # redirected; else passed up
    frame: bytes  # from its Ethernet type on
    counter: Counter | None
    rule: Ends | None


def expect(frame, rules, *, public_port, flow_ports, egress=False, routes=True, xdp=False):
    """Return what becomes of a frame. ``rules``: seen → (to, how)."""
    up = frame[12:]
    nothing = Expected(False, up, None, None)
    parsed = _parse(frame)
    if parsed is None:
        return nothing
    seen, hops, payload, rebuild, unfinished = parsed
    public = seen.destination.port == public_port and not egress
    if not egress and not public and seen.destination.port not in flow_ports:
        return nothing
    if egress and seen.source.port == public_port:
        return nothing
    if not 128 <= payload[0] <= 191:
        return nothing._replace(counter=Counter.UP_NOT_MEDIA) if public else nothing
    to, how = rules.get(seen, (None, How.NONE))
    if to is None or (how is How.RETURN) != egress:
        return nothing._replace(counter=Counter.UP_NO_RULE) if public else nothing
    forward = how is How.FORWARD
    if forward and hops <= 1:
        return nothing._replace(counter=Counter.UP_TTL)
    if forward and not routes:
        return nothing._replace(counter=Counter.UP_NO_ROUTE)
    if how is How.DELIVER:
        return Expected(False, rebuild(to, hops, pseudo=xdp and unfinished), Counter.DELIVERED, seen)
    if how is How.RETURN:
        return Expected(False, rebuild(to, hops, pseudo=xdp and unfinished), Counter.RETURNED, seen)
    return Expected(True, rebuild(to, hops - 1, pseudo=xdp and unfinished), Counter.FORWARDED, seen)


def _parse(frame):
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00":
        return _parse_v4(packet)
    if kind == b"\x86\xdd":
        return _parse_v6(packet)
    return None


def _parse_v4(packet):
    if len(packet) < 29 or packet[0] != 0x45 or packet[9] != 17:
        return None
    total, fragment = struct.unpack("!H", packet[2:4])[0], struct.unpack("!H", packet[6:8])[0]
    if fragment & 0x3FFF:
        return None
    found = _parse_udp(packet[20:], total - 20)
    if found is None:
        return None
    source_port, destination_port, payload = found

    def rebuild(to, hops, *, pseudo):
        header = bytearray(packet[:20])
        header[8] = hops
        # RFC 1624: what is wrong in the old sum stays wrong in the new one.
        wrong = _difference(checksum(bytes(packet[:10] + b"\0\0" + packet[12:20])), packet[10:12])
        header[12:20] = ipaddress.ip_address(to.source.host).packed + ipaddress.ip_address(to.destination.host).packed
        header[10:12] = b"\0\0"
        header[10:12] = _added(checksum(bytes(header)), wrong)
        return (
            b"\x08\x00"
            + bytes(header)
            + _rebuild_udp(packet[12:20], packet[20:], header[12:20], to, pseudo=pseudo, six=False)
        )

    ends = Ends(
        Address(str(ipaddress.ip_address(packet[12:16])), source_port),
        Address(str(ipaddress.ip_address(packet[16:20])), destination_port),
    )
    return ends, packet[8], payload, rebuild, _is_unfinished(packet[12:20], packet[20:])


def _parse_v6(packet):
    if len(packet) < 49 or packet[0] >> 4 != 6 or packet[6] != 17:
        return None
    found = _parse_udp(packet[40:], struct.unpack("!H", packet[4:6])[0])
    if found is None:
        return None
    source_port, destination_port, payload = found

    def rebuild(to, hops, *, pseudo):
        header = bytearray(packet[:40])
        header[7] = hops
        header[8:40] = ipaddress.ip_address(to.source.host).packed + ipaddress.ip_address(to.destination.host).packed
        return (
            b"\x86\xdd"
            + bytes(header)
            + _rebuild_udp(packet[8:40], packet[40:], header[8:40], to, pseudo=pseudo, six=True)
        )

    ends = Ends(
        Address(str(ipaddress.ip_address(packet[8:24])), source_port),
        Address(str(ipaddress.ip_address(packet[24:40])), destination_port),
    )
    return ends, packet[7], payload, rebuild, _is_unfinished(packet[8:40], packet[40:])


def _parse_udp(udp, length):
    source_port, destination_port, said = struct.unpack("!HHH", udp[:6])
    if said != length or not 8 < said <= len(udp):
        return None
    return source_port, destination_port, udp[8:said]


def _rebuild_udp(old_addresses, udp, new_addresses, to, *, pseudo, six):
    length = int.from_bytes(udp[4:6], "big")
    udp, padding = udp[:length], udp[length:]
    new = struct.pack("!HH", to.source.port, to.destination.port) + udp[4:]
    if udp[6:8] == b"\0\0":
        return new + padding
    if pseudo:  # the same sum over the new addresses
        return new[:6] + _pseudo_sum(new_addresses, new).to_bytes(2, "big") + new[8:] + padding
    wrong = _difference(_udp_checksum(old_addresses, udp, six=six), udp[6:8])
    right = _added(_udp_checksum(new_addresses, new, six=six), wrong)
    return new[:6] + (right if right != b"\0\0" else b"\xff\xff") + new[8:] + padding


def _is_unfinished(addresses, udp):
    """Whether the checksum is that of the pseudo header, not inverted: what stands there before a card finishes it."""
    return _pseudo_sum(addresses, udp) == int.from_bytes(udp[6:8], "big")


def _pseudo_sum(addresses, udp):
    return checksum(bytes(addresses) + udp[4:6] + b"\0\x11") ^ 0xFFFF


def _udp_checksum(addresses, udp, *, six):
    length = len(udp)
    pseudo = bytes(addresses) + (struct.pack("!IHBB", length, 0, 0, 17) if six else struct.pack("!BBH", 0, 17, length))
    return checksum(pseudo + udp[:6] + b"\0\0" + udp[8:])


def _difference(right, found):
    return (int.from_bytes(found, "big") - right) % 0xFFFF


def _added(right, wrong):
    total = right if wrong == 0 else (right + wrong) % 0xFFFF or 0xFFFF
    return total.to_bytes(2, "big")
