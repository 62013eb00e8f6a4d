import contextlib
import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire import stun

ufrags = st.text(alphabet="ABCabc0123+/", min_size=1, max_size=40)
transaction_ids = st.binary(min_size=12, max_size=12)
KEY = b"k" * 32


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_hmac_is_the_librarys(key, message):
    assert stun.hmac_sha1(key, message) == hmac.digest(key, message, hashlib.sha1)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_stun_error(data):
    for parse in (stun.parse_binding_request, stun.parse_binding_response):
        with contextlib.suppress(stun.StunError):
            stun.verify_integrity(parse(data), KEY)


@given(transaction_ids, ufrags, ufrags, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6))
def test_a_mangled_check_never_verifies_and_raises_only_stun_error(transaction_id, server, client, changes):
    good = stun.build_binding_request(transaction_id, f"{server}:{client}", KEY)
    data = bytearray(good)
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(stun.StunError):
        request = stun.parse_binding_request(bytes(data))
        if stun.verify_integrity(request, KEY):
            # Only what stands after the HMAC may differ, and the FINGERPRINT there would have been refused.
            assert data[: request.integrity_offset + 24] == good[: request.integrity_offset + 24]


@given(transaction_ids, ufrags, ufrags, st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 2**64 - 1))
def test_parse_of_build_is_what_was_built(transaction_id, server, client, priority, use_candidate, tie_breaker):
    data = stun.build_binding_request(
        transaction_id,
        f"{server}:{client}",
        KEY,
        priority=priority,
        use_candidate=use_candidate,
        ice_controlling=tie_breaker,
    )
    request = stun.parse_binding_request(data)
    assert request.transaction_id == transaction_id
    assert request.server_ufrag.decode() == server
    assert request.client_ufrag.decode() == client
    assert request.priority == priority
    assert request.use_candidate == use_candidate
    assert request.ice_controlling == tie_breaker
    assert stun.verify_integrity(request, KEY)


@given(transaction_ids, st.ip_addresses(), st.integers(0, 65535))
def test_mapped_addresses_survive_the_round_trip(transaction_id, host, port):
    mapped = Address(str(host), port)
    assert stun.parse_binding_response(stun.build_binding_success(transaction_id, mapped, KEY)).mapped == mapped
