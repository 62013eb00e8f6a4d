"""Ethernet frames with UDP in them, built and read back: written from the RFCs, apart from the program that is tested."""

import ipaddress
import struct

from voicefleet_dataplane.fastpath.maps import Ends

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def checksum(data):
    """Return the internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build_frame(ends, payload, *, hops=64, udp_checksum=True, options=b"", fragment=0, vlan=None, extension=b"", tos=0):
    """Return an Ethernet frame of a UDP datagram."""
    (source, source_port), (destination, destination_port) = ends
    addresses = [ipaddress.ip_address(host).packed for host in (source, destination)]
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", source_port, destination_port, length, 0) + payload
    six = len(addresses[0]) == 16
    pseudo = b"".join(addresses) + (
        struct.pack("!IHBB", length, 0, 0, 17) if six else struct.pack("!BBH", 0, 17, length)
    )
    if udp_checksum:
        udp = udp[:6] + (checksum(pseudo + udp) or 0xFFFF).to_bytes(2, "big") + udp[8:]
    if six:
        kind = 60 if extension else 17  # destination options
        ip = (
            struct.pack("!IHBB", 6 << 28 | tos << 20, length + len(extension), kind, hops)
            + b"".join(addresses)
            + extension
        )
    else:
        words = 5 + len(options) // 4
        ip = struct.pack("!BBHHHBBH", 0x40 | words, tos, words * 4 + length, 7, fragment, hops, 17, 0)
        ip += b"".join(addresses) + options
        ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    kind = b"\x86\xdd" if six else b"\x08\x00"
    tag = b"" if vlan is None else b"\x81\x00" + struct.pack("!H", vlan)
    return HERE + THERE + tag + kind + ip + udp


def without_link_addresses(frame):
    """Return a frame from its type on: which neighbour it goes to is the kernel's business."""
    return frame[12:]


def ends(source, destination):
    """Return the ends of a packet, from (host, port) pairs."""
    from voicefleet_contract.addresses import Address

    return Ends(Address(*source), Address(*destination))
