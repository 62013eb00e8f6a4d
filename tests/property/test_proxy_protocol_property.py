"""PROXY headers: what is built is read, byte by byte or at once; what is cut or too long is never taken for one."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.addresses import normalise
from voicefleet_listener.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    SIGNATURE,
    ProxyHeaderError,
    bytes_wanted,
    parse_proxy_header,
)

PORTS = st.integers(0, 65535)
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)


def version_1(source, destination, port, other):
    return f"PROXY TCP{source.version} {source} {destination} {port} {other}\r\n".encode()


def version_2(source, destination, port, other, tlvs=b"", command=0x21):
    body = source.packed + destination.packed + struct.pack("!HH", port, other) + tlvs
    return SIGNATURE + struct.pack("!BBH", command, 0x11 if source.version == 4 else 0x21, len(body)) + body


HEADERS = st.one_of(
    st.builds(lambda pair, port, other: (version_1(*pair, port, other), pair[0]), PAIRS, PORTS, PORTS),
    st.builds(
        lambda pair, port, other, tlvs: (version_2(*pair, port, other, tlvs), pair[0]),
        *(PAIRS, PORTS, PORTS, st.binary(max_size=300)),
    ),
)


def read(stream: bytes) -> tuple[bytes, str | None]:
    """Read as a listener does; returns the header, and so what was taken."""
    data = b""
    while wanted := bytes_wanted(data):
        assert wanted > 0
        if len(data) == len(stream):
            raise EOFError
        data += stream[len(data) : len(data) + wanted]
    return data, parse_proxy_header(data)


@given(HEADERS, st.binary(max_size=64))
def test_a_header_is_read_and_nothing_behind_it(header, behind):
    built, source = header
    assert read(built + behind) == (built, normalise(str(source)))


@given(HEADERS)
def test_a_header_that_is_cut_anywhere_is_none(header):
    built, _ = header
    for end in range(len(built)):
        with pytest.raises(EOFError):
            read(built[:end])
        with pytest.raises(ProxyHeaderError):
            parse_proxy_header(built[:end])


@given(HEADERS, st.binary(min_size=1, max_size=8))
def test_what_stands_behind_a_header_is_not_passed_over(header, behind):
    with pytest.raises(ProxyHeaderError):
        parse_proxy_header(header[0] + behind)


@given(st.binary(max_size=3000))
def test_bytes_of_all_kinds_are_bounded(data):
    try:
        taken, address = read(data)
    except (EOFError, ProxyHeaderError):
        return
    assert len(taken) <= MAX_V2_BYTES
    assert address is None or ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
        b"PROXY UNKNOWN " + b"f" * MAX_V1_BYTES + b"\r\n",
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_V2_BYTES),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 0xFFFF),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + bytes(11),
        SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x31, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x12, 12) + bytes(12),
        b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n",
        b"PROXY TCP4 2001:db8::1 192.0.2.1 4711 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 4711 443\r\n",
        "PROXY TCP4 ²03.0.113.9 192.0.2.1 4711 443\r\n".encode(),
        b"PROXY TCP4  203.0.113.9 192.0.2.1 4711 443\r\n",
        b"proxy TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(20),
    ],
)
def test_what_is_no_header_says_so(header):
    with pytest.raises(ProxyHeaderError):
        read(header)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 0),
        SIGNATURE + struct.pack("!BBH", 0x20, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216),
    ],
)
def test_a_proxy_that_speaks_for_itself_names_nobody(header):
    assert read(header) == (header, None)
