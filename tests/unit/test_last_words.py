"""The end of a call, as its client is told it: each protocol's last words, in an order in which they are understood.

The tests are coroutines because the timer of data channels wants a loop to be there.
"""

import types

import pytest

from tests.support.sctp import DataOf
from tests.support.transceiver import CLIENT, World
from tests.unit.test_another_peer import Agent, running
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.dtls import DtlsState
from voicefleet_dataplane.core.call.ice import OLD_CREDENTIALS_S
from voicefleet_dataplane.core.call.model import LAST_WORDS_S, EndReason
from voicefleet_dataplane.core.call.sctp.dcep import Terms
from voicefleet_dataplane.core.transceiver import ufrags
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.shell.transceiver import data_channels
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


@pytest.fixture
def world(monkeypatch):
    """One whose data channels live in its time."""
    made = World()
    monkeypatch.setattr(data_channels, "time", types.SimpleNamespace(monotonic=lambda: made.now))
    return made


async def test_sctp_aborts_before_dtls_closes(world):
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


async def test_channels_close_in_order_and_what_was_said_before_is_heard(world):
    client = world.call(CLIENT)
    call = running(client, Echo)
    data = await with_data(world, client, "oai-events", "else")
    assert call.send_event("last words")
    call.hang_up()
    world.settle()
    assert client.session.state == "ending"
    assert world.core.calls.sessions == {}  # for everybody else it is over
    assert not call.send_audio(b"opus", 1, 960)
    assert client.speak() is DropReason.SESSION_ENDED
    data.settle()
    assert data.end.heard == {0: ["last words"]}
    assert sorted(data.end.closed) == [0, 1]
    assert data.end.channels.ended == "aborted by the peer"
    assert client.session.state == "ended"
    assert client.dtls.state is DtlsState.CLOSED
    assert client.check() is DropReason.SESSION_ENDED


async def test_a_client_that_closes_nothing_is_waited_for_a_second_and_no_longer(world):
    client = world.call(CLIENT)
    agent = running(client, Agent)
    await with_data(world, client, "oai-events")
    agent.hang_up()
    world.settle()
    assert agent._backend.ended == 1  # its agent does not wait with it
    world.pass_time(LAST_WORDS_S - 0.01)
    assert client.check() is None
    assert client.dtls.state is DtlsState.CONNECTED
    world.pass_time(0.02)
    assert client.dtls.state is DtlsState.CLOSED
    assert client.data[-1][CHUNKS_AT] == ABORT
    assert client.check() is DropReason.SESSION_ENDED
    assert world.core.calls.deadline() is None


async def test_what_a_client_says_in_its_last_second_reaches_nobody(world):
    client = world.call(CLIENT)
    call = running(client, Agent)
    data = await with_data(world, client, "x")
    call.hang_up()
    world.settle()
    call._backend.on_data = call._backend.on_channel = None  # would raise
    data.end.channels.send(data.end.channels.open_channels[0], "wait!", world.now)
    data.end.open(6)
    data.settle()
    assert client.session.state == "ended"


async def test_a_client_that_goes_away_in_its_last_second_is_not_waited_for(world):
    client = world.call(CLIENT)
    call = running(client, Echo)
    await with_data(world, client, "x")
    call.hang_up()
    world.settle()
    client.dtls.close()
    client.flush()
    world.settle()
    assert client.session.state == "ended"
    assert client.session.end_reason is EndReason.HANG_UP


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
