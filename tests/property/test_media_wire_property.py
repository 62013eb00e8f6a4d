"""Whatever comes from the network, the parsers of media answer with a value or their one documented error."""

from hypothesis import given
from hypothesis import strategies as st

from voicefleet_dataplane.wire.dtls_record import (
    RECORD_HEADER_BYTES,
    client_hello_random,
    is_plausible_in_clear,
    pack_datagrams,
    parse_records,
)
from voicefleet_dataplane.wire.rtcp import parse_rtcp
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp


@given(st.binary(max_size=200))
def test_random_bytes_are_no_rtp_or_some_rtp(data):
    parse_rtp(data)
    parse_rtp(b"\x90" + data)
    parse_rtcp(data)
    parse_rtcp(b"\x81\xc8\x00\x0c" + data)


@given(
    st.builds(
        RtpPacket,
        st.booleans(),
        st.integers(0, 127),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=100),
    )
)
def test_any_packet_comes_back_as_it_was(packet):
    assert parse_rtp(build_rtp(packet)) == packet


@given(st.binary(max_size=100), st.booleans())
def test_random_records_are_judged_without_an_exception(data, from_client):
    framed = b"\x16\xfe\xfd" + bytes(8) + len(data).to_bytes(2) + data
    for datagram in (data, framed):
        for record in parse_records(datagram) or []:
            is_plausible_in_clear(record, from_client=from_client)
            client_hello_random(record)


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(400, 1_200))
def test_packing_keeps_every_record_and_the_limit(bodies, mtu_bytes):
    records = [b"\x17\xfe\xfd" + bytes(8) + len(body).to_bytes(2) + body for body in bodies]
    datagrams = list(pack_datagrams(b"".join(records), mtu_bytes))
    assert [record for datagram in datagrams for record in parse_records(datagram) or []] == records
    assert all(RECORD_HEADER_BYTES <= len(datagram) <= mtu_bytes for datagram in datagrams)
