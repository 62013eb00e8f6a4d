"""What a TCP listener reads before HTTP does: the PROXY header of a load balancer, and where a head ends."""

import contextlib
import ipaddress

from tests.fuzz.target import Target
from voicefleet_listener.head import HeadMeter
from voicefleet_listener.proxy_protocol import (
    MAX_V2_BYTES,
    SIGNATURE,
    ProxyHeaderError,
    bytes_wanted,
    parse_proxy_header,
)

_V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
_V2 = SIGNATURE + b"\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x12\x67\x01\xbb"


def proxy_header(data: bytes) -> None:
    """As a listener reads it, and whole."""
    read = b""
    with contextlib.suppress(ProxyHeaderError):
        while (wanted := bytes_wanted(read)) and len(read) < len(data):
            read += data[len(read) : len(read) + wanted]
            assert len(read) <= MAX_V2_BYTES
        for whole in (read, data):
            address = parse_proxy_header(whole)
            assert address is None or ipaddress.ip_address(address)


def head(data: bytes) -> None:
    """However a head is cut up, it is of the same size; the first byte says how it is cut."""
    size = data[0] % 16 + 1 if data else 1
    whole, cut = HeadMeter(), HeadMeter()
    whole.feed(data)
    for start in range(0, len(data), size):
        cut.feed(data[start : start + size])
    assert (cut.size, cut.complete) == (whole.size, whole.complete)
    end = data.lstrip(b"\r\n").find(b"\r\n\r\n")
    assert whole.complete == (end >= 0)


TARGETS = [
    Target(
        "proxy_header", proxy_header, [_V1, _V2, b"PROXY UNKNOWN\r\n"], words=[b"PROXY ", SIGNATURE, b"TCP6", b"\r\n"]
    ),
    Target(
        "head",
        head,
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"],
        words=[b"\r\n\r\n", b"\r\n", b"\n"],
        shapes={"ends that are none": lambda size: b"x" + b"\r\n\r" * (size // 3)},
    ),
]
