"""The relay process on real sockets: the straight path, the attacks, and what changes under it."""

import asyncio
import socket
import time

import pytest

from tests.support.relay_process import HOST, Owner, Peer, RunningRelay, running_relay, until
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.shell.relay.process import run_relay
from voicefleet_dataplane.wire.stun import build_binding_success

RTP = b"\x80\x6f" + bytes(160)


@pytest.fixture
def owners():
    pair = Owner(1), Owner(2)
    yield pair
    for owner in pair:
        owner.socket.close()


@pytest.fixture
def client():
    peer = Peer()
    yield peer
    peer.socket.close()


async def bind(relay, client, owner):
    """Make a flow, both ways proven."""
    client.send(owner.check(), relay.public)
    heard = await owner.receive_spp()
    assert heard == (client.address, relay.inner, owner.check())
    answer = build_binding_success(b"t" * 12, client.address, b"k")
    owner.send_spp(answer, client.address, relay.inner)
    assert await client.receive() == (answer, relay.public)


async def passes(relay, client, owner):
    """Media passes both ways."""
    client.send(RTP, relay.public)
    assert await owner.receive_spp() == (client.address, relay.inner, RTP)
    owner.send_spp(RTP, client.address, relay.inner)
    assert await client.receive() == (RTP, relay.public)


async def test_a_call_passes_both_ways_and_is_counted(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        await passes(relay, client, owners[0])
        samples = await relay.metrics()
        assert samples["voicefleet_relay_flows"] == 1
        for direction in ("inward", "outward"):
            assert samples[f'voicefleet_relay_packets_total{{direction="{direction}"}}'] == 2
        assert await relay.drops() == {}
        assert owners[1].nothing_waits()


async def test_many_packets_at_once_all_arrive_in_order(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        sent = [RTP[:2] + number.to_bytes(2, "big") + RTP for number in range(200)]
        for packet in sent:
            client.send(packet, relay.public)
        assert [(await owners[0].receive_spp())[2] for _ in sent] == sent


@pytest.mark.parametrize(("public", "client_host"), [("::1", "::1"), ("::", "::1"), ("::", HOST)])
async def test_ipv6_and_dual_stack_carry_clients_under_one_spelling(tmp_path, owners, public, client_host):
    client = Peer(client_host)
    async with running_relay(tmp_path, *owners, public_address=public) as relay:
        to = (client_host, relay.public.port)
        client.send(owners[0].check(), to)
        assert (await owners[0].receive_spp())[0] == client.address
        owners[0].send_spp(RTP, client.address, relay.inner)
        assert (await client.receive())[0] == RTP
    client.socket.close()


# ---- attacks: no byte to anybody, exactly one counter, and the valid twin passes


OWNER = Owner(1)
OWNER.socket.close()
SOMEWHERE = Address(HOST, 9)
OUTSIDE_ATTACKS = {
    "forged tag": (OWNER.check(keys=KeyRing({1: b"x" * 32}, signing=1)), DropReason.HINT_TAG),
    "wrong MESSAGE-INTEGRITY": (OWNER.check(password="wrong"), DropReason.STUN_BAD_INTEGRITY),
    "media of a stranger": (RTP, DropReason.FLOW_UNKNOWN),
    "ClientHello of a stranger": (b"\x16\xfe\xfd" + bytes(100), DropReason.FLOW_UNKNOWN),
    "SPP on the public port": (encode_spp(SOMEWHERE, SOMEWHERE) + RTP, DropReason.UNKNOWN_KIND),
    "an answer nobody asked for": (build_binding_success(b"t" * 12, SOMEWHERE, b"k"), DropReason.STUN_NOT_REQUEST),
}


@pytest.mark.parametrize("attack", OUTSIDE_ATTACKS)
async def test_attack_from_outside(tmp_path, owners, client, attack):
    packet, reason = OUTSIDE_ATTACKS[attack]
    mallory = Peer()
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        mallory.send(packet, relay.public)
        await passes(relay, client, owners[0])  # behind the attack in the same queue
        assert await relay.drops() == {reason: 1}
        assert mallory.nothing_waits()
        assert owners[0].nothing_waits()
        await bind(relay, mallory, owners[0])  # the twin
    mallory.socket.close()


async def test_attack_a_valid_check_from_a_live_victims_tuple(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        client.send(owners[1].check(), relay.public)  # spoofed: the source is the victim's
        assert (await owners[1].receive_spp())[0] == client.address
        owners[1].send_spp(RTP, client.address, relay.inner)
        await passes(relay, client, owners[0])
        assert await relay.drops() == {DropReason.FLOW_OF_ANOTHER_OWNER: 1}
        assert owners[1].nothing_waits()


INSIDE_ATTACKS = {  # whether a member sends it, the header's client and relay (None: the true one), the reason
    "SPP from a stranger": (False, None, None, DropReason.SPP_FROM_STRANGER),
    "return traffic of no flow": (True, SOMEWHERE, None, DropReason.FLOW_UNKNOWN),
    "another relay's header": (True, None, SOMEWHERE, DropReason.SPP_WRONG_RELAY),
}


@pytest.mark.parametrize("attack", INSIDE_ATTACKS)
async def test_attack_from_inside(tmp_path, owners, client, attack):
    member, named_client, named_relay, reason = INSIDE_ATTACKS[attack]
    stranger = Peer()
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        header = encode_spp(named_client or client.address, named_relay or relay.inner)
        (owners[0] if member else stranger).send(header + RTP, relay.inner)
        await passes(relay, client, owners[0])
        assert await relay.drops() == {reason: 1}
        assert client.nothing_waits()
    stranger.socket.close()


async def test_a_client_that_cannot_be_reached_costs_a_counter_and_nothing_else(tmp_path, owners, client):
    """Port 0 is a legal source on the wire and no destination: the kernel refuses it."""
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        nowhere = Address(HOST, 0)
        relay.process.core.receive_outside(owners[0].check(), nowhere, time.monotonic())
        owners[0].send_spp(RTP, nowhere, relay.inner)
        await passes(relay, client, owners[0])
        assert await relay.drops() == {DropReason.SEND_FAILED: 1}


# ---- what changes under it


async def test_a_topology_that_changes_is_followed(tmp_path, owners, client):
    async with running_relay(tmp_path, owners[0]) as relay:
        await bind(relay, client, owners[0])
        relay.write_topology(owners[0].member(state=MemberState.GONE), owners[1].member())
        core = relay.process.core
        await until(lambda: core.topology.member(2, 1) is not None)
        assert len(core.flows) == 0
        await bind(relay, client, owners[1])


async def test_keys_that_change_are_followed(tmp_path, owners, client):
    both = KeyRing({1: b"k" * 32, 2: b"n" * 32}, signing=2)
    async with running_relay(tmp_path, *owners) as relay:
        relay.write_keys(both)
        await until(lambda: relay.process.core.keys.epochs == (1, 2))
        check = owners[0].check(keys=both, epoch=2)
        client.send(check, relay.public)
        assert (await owners[0].receive_spp())[2] == check
        await bind(relay, client, owners[0])  # the old epoch still verifies


async def test_bad_files_leave_the_last_good_ones_in_use_and_are_shown(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as relay:
        relay.keys_file.write_text("{}")
        relay.topology_file.write_text("{}")
        await until(lambda: all(relay.process.stale().values()))
        samples = await relay.metrics()
        assert samples['voicefleet_relay_source_stale{what="topology"}'] == 1
        assert samples['voicefleet_relay_source_stale{what="hint_keys"}'] == 1
        await bind(relay, client, owners[0])
        assert (await relay.get("/readyz")).status_code == 200


async def test_without_a_topology_it_lives_and_is_not_ready(tmp_path):
    relay = RunningRelay(tmp_path)
    await relay.process.start(patience_s=0)
    assert (await relay.get("/healthz")).status_code == 200
    answer = await relay.get("/readyz")
    assert answer.status_code == 503
    assert "no topology" in answer.text
    await relay.process.stop()


async def test_packets_wait_for_the_first_topology(tmp_path, owners, client, monkeypatch):
    """It comes over the network, a little after the sockets are bound: what arrived between is not lost."""
    monkeypatch.setattr("voicefleet_dataplane.shell.relay.process._TOPOLOGY_PATIENCE_S", 60.0)
    relay = RunningRelay(tmp_path)
    await relay.process.start(patience_s=0)
    client.send(owners[0].check(), relay.public)
    client.send(RTP, relay.public)
    assert (await relay.get("/readyz")).status_code == 503
    relay.write_topology(owners[0].member())
    assert (await owners[0].receive_spp())[0] == client.address
    assert (await owners[0].receive_spp())[2] == RTP
    assert await relay.drops() == {}
    await relay.process.stop()


async def test_packets_wait_no_longer_for_a_topology_than_is_of_use(tmp_path, owners, client, monkeypatch):
    monkeypatch.setattr("voicefleet_dataplane.shell.relay.process._TOPOLOGY_PATIENCE_S", 0.05)
    relay = RunningRelay(tmp_path)
    await relay.process.start(patience_s=0)
    client.send(owners[0].check(), relay.public)
    await until(lambda: relay.process.core.drops[DropReason.OWNER_UNKNOWN] == 1)
    await relay.process.stop()


# ---- coming and going


async def test_leaving_is_unready_first_and_forwards_on(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as relay:
        await bind(relay, client, owners[0])
        leaving = asyncio.create_task(relay.process.leaving.leave())
        await asyncio.sleep(0)
        answer = await relay.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "leaving\n")
        await passes(relay, client, owners[0])
        await leaving


async def test_a_successor_waits_for_the_ports_and_calls_go_on_with_the_next_check(tmp_path, owners, client):
    async with running_relay(tmp_path, *owners) as old:
        await bind(old, client, owners[0])
        ports = {"public_port": old.public.port, "inner_port": old.inner.port}
        new = RunningRelay(tmp_path, **ports)
        starting = asyncio.create_task(new.process.start(patience_s=10))
        await passes(old, client, owners[0])
        assert not starting.done()
    await starting
    assert (new.public, new.inner) == (old.public, old.inner)
    client.send(RTP, new.public)  # before the check: silence
    await bind(new, client, owners[0])
    await passes(new, client, owners[0])
    assert await new.drops() == {DropReason.FLOW_UNKNOWN: 1}
    await new.process.stop()


@pytest.mark.parametrize("which", ["public_port", "inner_port"])
async def test_a_port_that_stays_taken_is_named_and_nothing_stays_open(tmp_path, which):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        relay = RunningRelay(tmp_path, **{which: port})
        with pytest.raises(OSError, match=f"cannot bind UDP {HOST}:{port}"):
            await relay.process.start(patience_s=0.1)


async def test_run_relay_ends_cleanly_when_it_is_told_to_leave(tmp_path, caplog):
    caplog.set_level("INFO")
    relay = RunningRelay(tmp_path)
    relay.write_topology()
    running = asyncio.create_task(run_relay(relay.settings))
    await until(lambda: any(message.startswith("public") for message in caplog.messages))
    running.cancel()
    await running


async def test_a_registry_that_is_away_is_said_and_stops_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    relay = RunningRelay(tmp_path, redis_url=f"redis://{HOST}:1")
    relay.write_topology()
    running = asyncio.create_task(run_relay(relay.settings))
    await until(lambda: any("registry is away" in message for message in caplog.messages))
    assert any(message.startswith("public") for message in caplog.messages)
    running.cancel()
    await running


async def test_a_missing_key_file_stops_it_at_start(tmp_path):
    relay = RunningRelay(tmp_path)
    relay.keys_file.unlink()
    with pytest.raises(FileNotFoundError):
        await run_relay(relay.settings)
