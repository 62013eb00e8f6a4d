"""Whatever comes from the network, the parsers of media answer with a value or their one documented error."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from tests.support.offers import CHROMIUM
from voicefleet_dataplane.wire.dtls_record import (
    RECORD_HEADER_BYTES,
    client_hello_random,
    is_plausible_in_clear,
    pack_datagrams,
    parse_records,
)
from voicefleet_dataplane.wire.rtcp import parse_rtcp
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp
from voicefleet_dataplane.wire.sdp.model import SdpError
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted

_LINES = CHROMIUM.split("\r\n")


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


@given(st.one_of(st.text(), st.binary(), st.text(max_size=50).map(lambda text: "v=0\r\n" + text)))
def test_random_text_is_refused_with_the_one_error(text):
    with contextlib.suppress(SdpError):
        parse_offer_untrusted(text)


@given(st.integers(0, len(_LINES) - 1), st.text(max_size=40), st.sampled_from(["replace", "append", "drop", "repeat"]))
def test_a_bent_offer_is_understood_or_refused_with_the_one_error(index, text, how):
    lines = list(_LINES)
    if how == "drop":
        del lines[index]
    else:
        bent = {"replace": lines[index][:2] + text, "append": lines[index] + text, "repeat": lines[index]}[how]
        lines[index : index + (how != "repeat")] = [bent]
    with contextlib.suppress(SdpError):
        parse_offer_untrusted("\r\n".join(lines))


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
