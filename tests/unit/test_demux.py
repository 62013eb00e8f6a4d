import pytest

from voicefleet_dataplane.wire.demux import Kind, classify


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        (0, 3, Kind.STUN),
        (4, 19, Kind.UNKNOWN),
        (20, 63, Kind.DTLS),
        (64, 85, Kind.UNKNOWN),
        (86, 86, Kind.SPP),
        (87, 127, Kind.UNKNOWN),
        (128, 191, Kind.RTP),
        (192, 255, Kind.UNKNOWN),
    ],
)
def test_each_first_byte_of_rfc_7983_has_one_kind(first, last, kind):
    assert {classify(bytes([byte, 0])) for byte in range(first, last + 1)} == {kind}


def test_the_second_byte_tells_rtcp_from_rtp():
    assert [classify(bytes([0x80, byte])) for byte in (96, 191, 192, 200, 223, 224)] == [
        Kind.RTP,
        Kind.RTP,
        Kind.RTCP,
        Kind.RTCP,
        Kind.RTCP,
        Kind.RTP,
    ]


def test_an_empty_datagram_is_unknown():
    assert classify(b"") is Kind.UNKNOWN


def test_one_byte_is_enough_to_classify():
    assert classify(b"\x80") is Kind.RTP
