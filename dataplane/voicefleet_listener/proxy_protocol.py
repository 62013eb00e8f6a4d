"""The PROXY protocol, versions 1 and 2: which client a load balancer forwards (the HAProxy specification, §2.1, §2.2).

Read exactly: what follows the header is TLS, and none of it may be taken. Pure; `bytes_wanted` says how much to read next.
"""

import ipaddress
import struct

from voicefleet_contract.addresses import normalise
from voicefleet_contract.outside import OutsideError, parse_integer

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1_BYTES = 107
MAX_V2_BYTES = 2048  # the specification asks for 536; load balancers add TLVs
_V2_HEAD_BYTES = 16
_V1_PREFIX = b"PROXY "
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport → bytes of one address. Other families (unspecified, Unix) name no client that we could count.
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}
_NO_ADDRESS = frozenset((0x00, 0x31))


class ProxyHeaderError(ValueError):
    """Not a PROXY header; the text says what is wrong."""


def bytes_wanted(data: bytes) -> int:
    """Return how many bytes to read next: 0 when the header is whole. Raises ProxyHeaderError as soon as it is none."""
    if not data:
        return len(SIGNATURE)  # the shortest header of version 1 has 15 bytes
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        if len(data) < _V2_HEAD_BYTES:
            return (len(SIGNATURE) if len(data) < len(SIGNATURE) else _V2_HEAD_BYTES) - len(data)
        whole = _V2_HEAD_BYTES + int.from_bytes(data[14:16], "big")
        if whole > MAX_V2_BYTES:
            raise ProxyHeaderError(f"version 2: {whole} bytes; at most {MAX_V2_BYTES} are read")
        return max(0, whole - len(data))
    if data[: len(_V1_PREFIX)] != _V1_PREFIX[: len(data)]:
        raise ProxyHeaderError("neither version 1 nor 2 begins so")
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= MAX_V1_BYTES:
        raise ProxyHeaderError(f"version 1: no end of line within {MAX_V1_BYTES} bytes")
    return max(1, len(SIGNATURE) - len(data))


def parse_proxy_header(data: bytes) -> str | None:
    """Return the client's address; None: the proxy speaks for itself, or names no IP address. Raises ProxyHeaderError."""
    if bytes_wanted(data):
        raise ProxyHeaderError("cut off")
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if len(data) > MAX_V1_BYTES:
        raise ProxyHeaderError(f"version 1: more than {MAX_V1_BYTES} bytes")
    return _parse_v1(data)


def _parse_v2(data: bytes) -> str | None:
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if len(data) != _V2_HEAD_BYTES + length:
        raise ProxyHeaderError("version 2: bytes behind the header")
    if command == _LOCAL:
        return None
    if command != _PROXY:
        raise ProxyHeaderError(f"version and command {command:#04x} are neither LOCAL nor PROXY of version 2")
    if family in _NO_ADDRESS:
        return None
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        raise ProxyHeaderError(f"version 2: family and transport {family:#04x} are not TCP")
    if length < 2 * size + 4:  # both addresses, both ports
        raise ProxyHeaderError("version 2: shorter than its addresses")
    return normalise(str(ipaddress.ip_address(data[_V2_HEAD_BYTES : _V2_HEAD_BYTES + size])))


def _parse_v1(data: bytes) -> str | None:
    try:
        words = data[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("version 1: not ASCII") from None
    if len(words) > 1 and words[1] == "UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError("version 1: write PROXY TCP4 SOURCE DESTINATION PORT PORT")
    if not all(map(_is_port, words[4:])):
        raise ProxyHeaderError("version 1: a port is 0 to 65535")
    try:
        kind = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
        if b"%" in data:  # a zone means nothing here, and would make many clients of one
            raise ValueError
        source, _ = kind(words[2]), kind(words[3])
    except ValueError:
        raise ProxyHeaderError(f"version 1: not addresses of {words[1]}") from None
    return normalise(str(source))


def _is_port(text: str) -> bool:
    try:
        return str(parse_integer(text, 65_535)) == text  # without leading zeros
    except OutsideError:
        return False
