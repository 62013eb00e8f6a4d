"""MESSAGE-INTEGRITY-SHA256, alone or beside MESSAGE-INTEGRITY, as RFC 8489 sections 9.1.3 and 14.6 have it."""

import hashlib
import hmac

import pytest

from tests.support.transceiver import CLIENT, World
from tests.unit.test_relay import ALICE, INNER, KEYS, OWNER_A, a_relay, ufrag
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import ice_pwd
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.relay.flow import GOODBYE_S
from voicefleet_dataplane.wire.stun import (
    FORBIDDEN,
    MESSAGE_INTEGRITY_SHA256,
    StunError,
    build_binding_error,
    build_binding_request,
    build_binding_success,
    parse_binding_request,
    parse_binding_response,
    verify_integrity,
)

TRANSACTION = b"t" * 12
ALONE, BESIDE = {"sha1": False, "sha256": True}, {"sha1": True, "sha256": True}
both_ways = pytest.mark.parametrize("kinds", [ALONE, BESIDE], ids=["alone", "beside sha-1"])


@both_ways
def test_it_is_the_hmac_that_section_14_6_defines(kinds):
    data = build_binding_request(TRANSACTION, "us:them", b"key", **kinds)
    at = data.index(MESSAGE_INTEGRITY_SHA256.to_bytes(2) + (32).to_bytes(2))
    covered = data[:2] + (at + 36 - 20).to_bytes(2) + data[4:at]
    assert data[at + 4 : at + 36] == hmac.new(b"key", covered, hashlib.sha256).digest()


@both_ways
def test_it_must_be_right_where_it_is_there(kinds):
    data = build_binding_request(TRANSACTION, "us:them", b"key", **kinds)
    request = parse_binding_request(data)
    assert request.unknown_attributes == ()
    assert verify_integrity(request, b"key")
    assert not verify_integrity(request, b"another")
    at = request.sha256_offset + 10
    wrong = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 : -8]
    assert not verify_integrity(parse_binding_request(wrong[:2] + (len(wrong) - 20).to_bytes(2) + wrong[4:]), b"key")


def test_a_truncated_one_is_malformed():
    data = build_binding_request(TRANSACTION, "us:them", None, extra=[(MESSAGE_INTEGRITY_SHA256, bytes(16))])
    with pytest.raises(StunError) as raised:
        parse_binding_request(data)
    assert raised.value.reason is DropReason.STUN_MALFORMED


@both_ways
def test_a_client_that_signs_so_gets_a_call_and_answers_signed_so_alone(kinds):
    world = World()
    caller = world.call()
    assert caller.check(**kinds) is None
    world.settle()
    assert caller.session.state == "connected"
    answer = parse_binding_response(caller.answered[0])
    assert (bool(answer.sha256_offset), bool(answer.integrity_offset)) == (True, False)
    assert verify_integrity(answer, caller.pwd.encode())


@both_ways
def test_so_is_the_refusal_of_a_call_that_is_over(kinds):
    world = World()
    caller = world.connected(CLIENT)
    world.core.calls.hang_up(caller.session.agreed.call_id)
    world.settle()
    caller.answered.clear()
    assert caller.check(**kinds) is DropReason.SESSION_ENDED
    world.settle()
    answer = parse_binding_response(caller.answered[0])
    assert (answer.error_code, bool(answer.sha256_offset), bool(answer.integrity_offset)) == (403, True, False)
    assert verify_integrity(answer, caller.pwd.encode())


def test_a_relay_reads_both_in_checks_and_in_answers():
    relay, password = a_relay(), ice_pwd(ufrag(), 1, KEYS).encode()
    check = build_binding_request(TRANSACTION, f"{ufrag()}:cccc", password, **ALONE)
    assert relay.receive_outside(check, ALICE, 0.0)[1] == OWNER_A
    forged = build_binding_request(TRANSACTION, f"{ufrag()}:cccc", b"wrong", **ALONE)
    assert relay.receive_outside(forged, ALICE, 0.0) is DropReason.STUN_BAD_INTEGRITY
    name = ufrag(nonce=6)
    other = ice_pwd(name, 1, KEYS).encode()
    relay.receive_outside(build_binding_request(TRANSACTION, f"{name}:cccc", other, **ALONE), ALICE, 1.0)
    answer = build_binding_success(TRANSACTION, ALICE, other, sha256=True)
    relay.receive_inside(encode_spp(ALICE, INNER) + answer, OWNER_A, 1.0)
    assert relay.flows.by_client[ALICE].ufrag == name.encode()
    refusal = build_binding_error(TRANSACTION, FORBIDDEN, other, sha256=True)
    relay.receive_inside(encode_spp(ALICE, INNER) + refusal, OWNER_A, 2.0)
    assert relay.flows.by_client[ALICE].patience_s == GOODBYE_S
