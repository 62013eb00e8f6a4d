"""A stock aiortc client against our transceiver on loopback: audio and data come back, straight and through relays."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.support.aiortc_client import AiortcClient, use_loopback
from tests.support.transceiver_process import HOST, RunningTransceiver, running_transceiver
from voicefleet_contract.addresses import Address
from voicefleet_contract.settings import RelaySettings
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology, TopologyIndex
from voicefleet_dataplane.shell.process.topology_source import TopologyFile
from voicefleet_dataplane.shell.relay.process import RelayProcess

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def _loopback(monkeypatch):
    use_loopback(monkeypatch)


async def connect(
    transceiver: RunningTransceiver, frequency_hz: float = 440.0, ingress: Address | None = None
) -> tuple[AiortcClient, str]:
    client = AiortcClient(frequency_hz)
    call_id = ""

    async def exchange(offer: str) -> str:
        nonlocal call_id
        candidates = [Endpoint(address=ingress.host, port=ingress.port)] if ingress else None
        created = await transceiver.create(offer, candidates)
        call_id = created.call_id
        return created.answer

    await client.connect(exchange)
    return client, call_id


@pytest.mark.parametrize("dtls_role", ["active", "passive"])
@pytest.mark.parametrize("srtp_profiles", ["default", "gcm"])
async def test_audio_and_data_come_back(secrets_dir, dtls_role, srtp_profiles):
    async with running_transceiver(secrets_dir, dtls_role=dtls_role, srtp_profiles=srtp_profiles) as transceiver:
        client, call_id = await connect(transceiver)
        try:
            assert await client.say("hello") == "hello"
            assert await client.say(b"\x00\x01") == b"\x00\x01"
            await client.hear(1.0)
            assert client.heard_frequency_hz() == pytest.approx(440, abs=5)
            session = (await transceiver.sessions())[call_id]
            assert session.state == "connected"
            assert session.packets_in > 40
            assert session.loss == 0
        finally:
            await client.close()


async def test_five_calls_at_once_each_hear_their_own_voice(secrets_dir):
    frequencies = [300.0, 500.0, 700.0, 900.0, 1_100.0]
    async with running_transceiver(secrets_dir) as transceiver:
        calls = await asyncio.gather(*(connect(transceiver, frequency) for frequency in frequencies))
        try:
            await asyncio.gather(*(client.hear(1.5) for client, _ in calls))
            assert [client.heard_frequency_hz() for client, _ in calls] == pytest.approx(frequencies, abs=5)
            said = await asyncio.gather(*(client.say(f"I am {call_id}") for client, call_id in calls))
            assert said == [f"I am {call_id}" for _, call_id in calls]
            status = await transceiver.status()
            assert status.sessions == 5
            assert status.drops == {}
        finally:
            await asyncio.gather(*(client.close() for client, _ in calls))


async def test_a_long_message_crosses_in_parts_and_comes_back_whole(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        client, _ = await connect(transceiver)
        try:
            long = "x" * 60_000
            assert await client.say(long) == long
        finally:
            await client.close()


async def test_a_hang_up_closes_the_client(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        client, call_id = await connect(transceiver)
        try:
            await client.hear(0.2)
            assert (await transceiver.hang_up(call_id)).status_code == 200
            await asyncio.wait_for(client.closed.wait(), 10)
            assert await transceiver.sessions() == {}
            assert (await transceiver.hang_up(call_id)).status_code == 404
        finally:
            await client.close()


async def test_a_client_that_leaves_ends_its_call(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        client, _ = await connect(transceiver)
        await client.hear(0.2)
        await client.close()
        async with asyncio.timeout(10):
            await transceiver.process.wait_drained(10)
        assert transceiver.process.core.calls.tally.ended["closed_by_client"] == 1


async def test_reports_give_the_round_trip_and_the_client_gets_ours(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        client, call_id = await connect(transceiver)
        try:
            async with asyncio.timeout(20):
                while (await transceiver.sessions())[call_id].rtt_ms is None:
                    await client.hear(sum(map(len, client.samples)) / 48_000 + 0.1)
                stats: dict = {}
                while "remote-inbound-rtp" not in stats:
                    await client.hear(sum(map(len, client.samples)) / 48_000 + 0.1)
                    stats = {one.type: one for one in (await client.pc.getStats()).values()}
            assert stats["remote-inbound-rtp"].packetsLost == 0
        finally:
            await client.close()


def free_port() -> int:
    """A number that is free on UDP and on TCP: a relay's inner address takes both."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind((HOST, 0))
        tcp.bind((HOST, udp.getsockname()[1]))
        return int(udp.getsockname()[1])


@contextlib.asynccontextmanager
async def relaying(secrets_dir: Path, topology: Path, inner_port: int, public_port: int = 0):
    settings = RelaySettings(
        cluster_id=7,
        hint_keys_file=str(secrets_dir / "hint-keys" / "keys.json"),
        public_address=HOST,
        public_port=public_port,
        inner_address=HOST,
        inner_port=inner_port,
        leave_grace_s=0,
    )
    process = RelayProcess(settings, TopologyFile(topology))
    await process.start(patience_s=5)
    try:
        yield process
    finally:
        await process.stop()


async def test_a_call_survives_its_flow_moving_to_another_relay(secrets_dir, tmp_path):
    """One public address, behind it first one relay and then another: nobody tells client or owner but the next check."""
    first, second = free_port(), free_port()
    relays = tuple(
        Relay(name=name, inner=(Endpoint(address=HOST, port=port),))
        for name, port in (("first", first), ("second", second))
    )
    index = TopologyIndex(Topology(cluster=7, relays=relays))
    async with running_transceiver(secrets_dir, index, accept_direct=False) as transceiver:
        member = Member(slot=5, generation=2, address=HOST, port=transceiver.process.port)
        topology = tmp_path / "topology.json"
        pools = (Pool(name="agents", members=(member,)),)
        topology.write_text(Topology(cluster=7, relays=relays, pools=pools).dump())
        async with relaying(secrets_dir, topology, first) as relay:
            public = relay.public
            client, call_id = await connect(transceiver, 600.0, ingress=public)
            assert await client.say("hello") == "hello"
            await client.hear(1.0)
            assert client.heard_frequency_hz() == pytest.approx(600, abs=5)
            assert (await transceiver.sessions())[call_id].relay == str(relay.inner)
            assert relay.core.inward.packets > 50
        try:
            async with relaying(secrets_dir, topology, second, public.port) as relay:
                async with asyncio.timeout(20):
                    while (await transceiver.sessions())[call_id].relay != str(relay.inner):
                        await asyncio.sleep(0.1)
                assert await client.say("again") == "again"
                assert (await transceiver.status()).drops == {}
        finally:
            await client.close()
