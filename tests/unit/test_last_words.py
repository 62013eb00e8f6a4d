"""The end of a call, as its client is told it: each protocol's last words, in an order in which they are understood.

The tests are coroutines because the timer of data channels wants a loop to be there.
"""

import pytest

from tests.support.sctp import DataOf
from tests.support.transceiver import CLIENT, World
from tests.unit.test_another_peer import running
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.dtls import DtlsState
from voicefleet_dataplane.core.call.ice import OLD_CREDENTIALS_S
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.sctp.dcep import Terms
from voicefleet_dataplane.core.transceiver import ufrags
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.wire.sdp.model import SetupRole
from voicefleet_dataplane.wire.stun import build_binding_request, parse_binding_response, verify_integrity

FINGERPRINT_AND_PRIORITY_BYTES = 8 + 8  # a check could do without
CHUNKS_AT = 12  # of an SCTP packet (RFC 9260 section 3)
ABORT = 6


async def with_data(world, client, *labels):
    """Its data channels, open."""
    data = DataOf(world, client)
    client.check()
    world.settle()
    data.settle()
    assert data.end.channels.is_up
    for stream, label in enumerate(labels):
        data.end.open(stream, Terms(label))
    data.settle()
    return data


async def test_sctp_aborts_before_dtls_closes():
    world = World()
    client = world.call(CLIENT, setup=SetupRole.PASSIVE)  # we are DTLS's client
    call = running(client, Echo)
    data = await with_data(world, client)
    call.hang_up()
    world.settle()
    assert [packet[CHUNKS_AT] for packet in client.data] == [ABORT]  # it could still be read
    assert client.dtls.state is DtlsState.CLOSED
    assert client.session.end_reason is EndReason.HANG_UP
    data.settle()
    assert data.end.channels.ended == "aborted by the peer"


async def test_a_client_that_is_in_another_call_is_told_nothing_by_sctp():
    world = World()
    client = world.call(CLIENT, setup=SetupRole.PASSIVE)
    running(client, Echo)
    client.check()
    world.settle()
    client.data.clear()
    client.session.end(EndReason.REPLACED)
    world.settle()
    assert client.data == []
    assert client.dtls.state is DtlsState.CLOSED


def refusals(client) -> list[int | None]:
    """The error codes of the answers to its checks; all are authentic."""
    found = [parse_binding_response(answer) for answer in client.answered]
    assert all(verify_integrity(one, client.pwd.encode()) for one in found)
    return [one.error_code for one in found]


async def test_a_check_of_a_call_that_is_over_is_told_that_consent_is_withdrawn():
    """The one word that also those hear who have no data channel, and those who missed the others."""
    world = World()
    client = world.connected()
    world.core.calls.hang_up(client.session.agreed.call_id)
    world.settle()
    client.answered.clear()
    smallest = build_binding_request(b"t" * 12, f"{client.server_ufrag}:c", client.pwd.encode(), ice_controlling=None)
    assert client.send(smallest) is DropReason.SESSION_ENDED
    world.settle()
    assert refusals(client) == [403]
    assert len(client.answered[0]) < len(smallest) - FINGERPRINT_AND_PRIORITY_BYTES


async def test_the_next_process_of_a_slot_tells_the_clients_of_the_one_that_was_killed():
    client = World().connected()
    world = client.world = World()
    world.clients[CLIENT] = client
    client.answered.clear()
    assert client.check() is DropReason.SESSION_UNKNOWN
    world.settle()
    assert refusals(client) == [403]


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ({}, {"key": b"x" * 32}),
        ({}, {"key": None}),
        ({}, {"username": "A" * 24 + ":c1ie"}),
        ({"generation": 3}, {}),
        ({"slot": 6}, {}),
        ({"cluster": 8}, {}),
    ],
)
async def test_consent_of_others_is_not_ours_to_withdraw(place, options):
    client = World().connected()
    world = client.world = World(**place)
    check = {
        "transaction_id": b"t" * 12,
        "username": f"{client.server_ufrag}:c1ie",
        "key": client.pwd.encode(),
    } | options
    assert client.send(build_binding_request(**check)) is DropReason.SESSION_UNKNOWN
    assert world.core.transmit == []


@pytest.mark.parametrize("remembered", [4_096, 1])
async def test_outgrown_credentials_of_a_running_call_meet_silence(monkeypatch, remembered):
    """Also when so many others have gone out of use meanwhile that they are forgotten."""
    monkeypatch.setattr(ufrags, "RETIRED_REMEMBERED", remembered)
    world = World()
    client = world.connected()
    made = world.core.calls.restart_ice(client.session, "n3w1", world.now)

    def check_anew(transaction: bytes) -> None:
        request = build_binding_request(transaction, f"{made.ufrag}:n3w1", made.pwd.encode(), use_candidate=True)
        assert client.send(request) is None

    check_anew(b"1" * 12)
    world.pass_time(OLD_CREDENTIALS_S - 1)
    check_anew(b"2" * 12)
    world.pass_time(1)
    other = world.call(Address("198.51.100.2", 40_000))
    world.core.calls.hang_up(other.session.agreed.call_id)
    world.settle()
    assert client.check() is (DropReason.SESSION_ENDED if remembered > 1 else DropReason.SESSION_UNKNOWN)
    assert world.core.transmit == []
    assert client.session.state == "connected"
