"""RFC 5769's vectors, and what the parser refuses."""

import pytest

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.wire import stun

# RFC 5769 §2.1–2.3. Their fill bytes are spaces, not zeros; the password is the same in all three.
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION_ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RESPONSE_V4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RESPONSE_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)


def test_rfc_5769_request_parses_and_verifies():
    request = stun.parse_binding_request(REQUEST)
    assert request.transaction_id == TRANSACTION_ID
    assert (request.server_ufrag, request.client_ufrag) == (b"evtj", b"h6vY")
    assert request.priority == 0x6E0001FF
    assert request.ice_controlled == 0x932FF9B151263B36
    assert request.ice_controlling is None
    assert not request.use_candidate
    assert request.unknown_attributes == ()
    assert stun.verify_integrity(request, PASSWORD)
    assert not stun.verify_integrity(request, b"another password")


@pytest.mark.parametrize(
    ("vector", "mapped"),
    [
        (RESPONSE_V4, Address("192.0.2.1", 32853)),
        (RESPONSE_V6, Address("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc_5769_responses_parse_and_verify(vector, mapped):
    response = stun.parse_binding_response(vector)
    assert response.transaction_id == TRANSACTION_ID
    assert response.mapped == mapped
    assert response.error_code is None
    assert stun.verify_integrity(response, PASSWORD)


@pytest.mark.parametrize("mapped", [Address("192.0.2.1", 32853), Address("2001:db8::1", 1)])
def test_a_success_response_tells_the_mapped_address(mapped):
    data = stun.build_binding_success(TRANSACTION_ID, mapped, PASSWORD)
    response = stun.parse_binding_response(data)
    assert response.mapped == mapped
    assert response.transaction_id == TRANSACTION_ID
    assert stun.verify_integrity(response, PASSWORD)


def test_a_success_response_is_shorter_than_the_smallest_check_of_ours():
    check = stun.build_binding_request(TRANSACTION_ID, "s" * 24 + ":" + "c" * 4, PASSWORD)
    assert len(stun.build_binding_success(TRANSACTION_ID, Address("2001:db8::1", 1), PASSWORD)) < len(check)


def test_an_error_response_carries_code_and_unknown_attributes():
    data = stun.build_binding_error(TRANSACTION_ID, 420, PASSWORD, unknown_attributes=[0x7001])
    response = stun.parse_binding_response(data)
    assert response.error_code == 420
    assert response.mapped is None
    assert bytes.fromhex("000a00027001") in data
    assert stun.verify_integrity(response, PASSWORD)


def test_role_conflict_is_487():
    assert stun.parse_binding_response(stun.build_binding_error(TRANSACTION_ID, 487, PASSWORD)).error_code == 487


def test_a_built_request_reads_back():
    data = stun.build_binding_request(TRANSACTION_ID, "server:client", PASSWORD, use_candidate=True, ice_controlling=7)
    request = stun.parse_binding_request(data)
    assert (request.server_ufrag, request.client_ufrag) == (b"server", b"client")
    assert (request.use_candidate, request.ice_controlling, request.ice_controlled) == (True, 7, None)
    assert stun.verify_integrity(request, PASSWORD)


def check(**overrides):
    return stun.build_binding_request(
        TRANSACTION_ID, overrides.pop("username", "server:client"), overrides.pop("key", PASSWORD), **overrides
    )


def unfingerprinted(data):
    """The message without its FINGERPRINT, so that a test can change bytes before the end."""
    body = bytearray(data[:-8])
    body[2:4] = (len(body) - 20).to_bytes(2, "big")
    return bytes(body)


def reason_of(data):
    with pytest.raises(stun.StunError) as caught:
        stun.parse_binding_request(data)
    return caught.value.reason


def test_a_request_without_fingerprint_is_read():
    request = stun.parse_binding_request(unfingerprinted(check()))
    assert stun.verify_integrity(request, PASSWORD)


def test_a_request_without_integrity_parses_but_never_verifies():
    assert not stun.verify_integrity(stun.parse_binding_request(check(key=None)), PASSWORD)


def test_unknown_comprehension_required_attributes_are_reported():
    assert stun.parse_binding_request(check(extra=[(0x7001, b"abc")])).unknown_attributes == (0x7001,)


def test_unknown_comprehension_optional_attributes_are_ignored():
    request = stun.parse_binding_request(check(extra=[(0xC057, b"abcd")]))  # Chromium's network cost
    assert request.unknown_attributes == ()
    assert stun.verify_integrity(request, PASSWORD)


def test_attributes_after_message_integrity_are_not_believed():
    data = bytearray(unfingerprinted(check()))
    data += bytes.fromhex("00250000")  # USE-CANDIDATE, not covered by the HMAC
    data[2:4] = (len(data) - 20).to_bytes(2, "big")
    request = stun.parse_binding_request(bytes(data))
    assert not request.use_candidate
    assert stun.verify_integrity(request, PASSWORD)


def test_of_two_usernames_the_first_counts():
    request = stun.parse_binding_request(check(extra=[(stun.USERNAME, b"other:one")]))
    assert request.server_ufrag == b"server"


def test_a_changed_byte_under_the_hmac_does_not_verify():
    data = bytearray(unfingerprinted(check()))
    data[8] ^= 1
    assert not stun.verify_integrity(stun.parse_binding_request(bytes(data)), PASSWORD)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DropReason.STUN_MALFORMED),
        (REQUEST[:19], DropReason.STUN_MALFORMED),
        (REQUEST[:-4], DropReason.STUN_MALFORMED),
        (REQUEST + b"\0\0\0\0", DropReason.STUN_MALFORMED),
        (REQUEST[:4] + b"\0\0\0\0" + REQUEST[8:], DropReason.STUN_MALFORMED),  # the cookie
        (REQUEST[:-1] + b"\0", DropReason.STUN_BAD_FINGERPRINT),
        (RESPONSE_V4, DropReason.STUN_NOT_REQUEST),
        (b"\x00\x03" + REQUEST[2:], DropReason.STUN_NOT_REQUEST),  # TURN Allocate
        (b"\x00\x11" + REQUEST[2:], DropReason.STUN_NOT_REQUEST),  # Binding indication
        (check(username="nocolon"), DropReason.STUN_NO_USERNAME),
        (check(username=":client"), DropReason.STUN_NO_USERNAME),
        (check(username="server:"), DropReason.STUN_NO_USERNAME),
        (check(username="s" * 300 + ":" + "c" * 300), DropReason.STUN_NO_USERNAME),
        (bytes.fromhex("00010000" + "2112a442") + TRANSACTION_ID, DropReason.STUN_NO_USERNAME),
        (check(extra=[(stun.PRIORITY, b"toolong!")]), DropReason.STUN_MALFORMED),
        (check(extra=[(stun.ICE_CONTROLLING, b"tiny")]), DropReason.STUN_MALFORMED),
        (check(extra=[(stun.FINGERPRINT, b"notl")]), DropReason.STUN_MALFORMED),  # not the last attribute
    ],
)
def test_bad_bytes_raise_the_documented_error_with_the_reason_to_count(data, reason):
    assert reason_of(data) == reason


def test_an_attribute_that_runs_past_the_end_is_malformed():
    data = bytearray(REQUEST)
    data[22:24] = (0xFFFF).to_bytes(2, "big")
    assert reason_of(bytes(data)) == DropReason.STUN_MALFORMED
