"""A relay that listens on all addresses of its node answers each client from the one that it sent to."""

import socket
import struct

import pytest

from tests.support.relay_process import Owner, Peer, running_relay
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.pktinfo import CONTROL_BYTES, build_departure, control_bytes, parse_arrival
from voicefleet_dataplane.wire.stun import build_binding_success

RTP = b"\x80\x6f" + bytes(160)


@pytest.fixture
def owner():
    made = Owner(1)
    yield made
    made.socket.close()


async def talk(relay, client, owner, to):
    """A check and its answer, media both ways."""
    client.send(owner.check(), to)
    assert await owner.receive_spp() == (client.address, relay.inner, owner.check())
    answer = build_binding_success(b"t" * 12, client.address, b"k")
    owner.send_spp(answer, client.address, relay.inner)
    assert await client.receive() == (answer, to)
    client.send(RTP, to)
    assert await owner.receive_spp() == (client.address, relay.inner, RTP)
    owner.send_spp(RTP, client.address, relay.inner)
    assert await client.receive() == (RTP, to)


@pytest.mark.parametrize(
    ("listens", "host"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2"),
        ("::", "127.0.0.2"),
        ("::", "::1"),
    ],
)
async def test_it_answers_from_the_address_that_was_asked(tmp_path, owner, listens, host):
    client = Peer("::1" if ":" in host else "127.0.0.1")
    with client.socket:
        async with running_relay(tmp_path, owner, public_address=listens) as relay:
            await talk(relay, client, owner, Address(host, relay.public.port))


async def test_clients_of_several_addresses_do_not_mix_and_one_may_change(tmp_path, owner):
    clients = [Peer() for _ in range(3)]
    async with running_relay(tmp_path, owner, public_address="0.0.0.0") as relay:
        ports = [Address(f"127.0.0.{2 + number}", relay.public.port) for number in range(3)]
        for client, to in zip(clients, ports, strict=True):
            await talk(relay, client, owner, to)
        for client, to in zip(clients, ports, strict=True):
            owner.send_spp(RTP, client.address, relay.inner)
            assert await client.receive() == (RTP, to)
        await talk(relay, clients[0], owner, ports[1])
    for client in clients:
        client.socket.close()


@pytest.mark.parametrize(("listens", "host"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
async def test_where_it_is_not_known_the_route_says_it(tmp_path, owner, listens, host):
    """A flow that came out of the cache, before its next check."""
    client = Peer(host)
    with client.socket:
        async with running_relay(tmp_path, owner, public_address=listens) as relay:
            to = Address(host, relay.public.port)
            await talk(relay, client, owner, to)
            relay.process.core.flows.by_client[client.address].public = ""
            owner.send_spp(RTP, client.address, relay.inner)
            assert await client.receive() == (RTP, to)


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "192.0.2.1"),
        (socket.AF_INET6, "192.0.2.1"),
        (socket.AF_INET6, "2001:db8::1"),
    ],
)
def test_a_departure_is_spelled_as_the_kernel_reads_it(family, host):
    message = build_departure(host, family)
    assert len(message) == CONTROL_BYTES >= control_bytes(family)
    level, kind = (socket.IPPROTO_IP, 8) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 50)
    assert struct.unpack_from("=ii", message, 8) == (level, kind)
    assert socket.CMSG_SPACE(int.from_bytes(message[:8], "little") - 16) == control_bytes(family)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_the_kernel_does_not_say_is_not_known(family):
    assert parse_arrival(bytes(CONTROL_BYTES), family) == ""
    other = socket.AF_INET if family == socket.AF_INET6 else socket.AF_INET6
    assert parse_arrival(build_departure("192.0.2.1", other), family) == ""
