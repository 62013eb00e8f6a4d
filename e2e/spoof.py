"""Datagrams with somebody else's source address, for the attack table. Only between namespaces of this machine's making."""

import socket
import struct

from voicefleet_contract.addresses import Address


def send_spoofed(payload: bytes, source: Address, target: Address) -> None:
    """Send one UDP datagram (IPv4, RFC 768 and 791) as if from ``source``; a checksum of zero means none."""
    udp = struct.pack("!HHHH", source.port, target.port, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source.host) + socket.inet_aton(target.host)
    # The kernel fills in total length, identification and header checksum.
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(ip + udp, (target.host, 0))
