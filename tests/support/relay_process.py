"""A relay process on loopback between a fake client and fake owners, all on real sockets."""

import asyncio
import contextlib
import socket

import httpx

from voicefleet_contract.addresses import from_kernel
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.settings import RelaySettings
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.shell.process.topology_source import TopologyFile
from voicefleet_dataplane.shell.relay.process import RelayProcess
from voicefleet_dataplane.wire.stun import build_binding_request

HOST = "127.0.0.1"
CLUSTER = 9
KEYS = KeyRing({1: b"k" * 32}, signing=1)


class Peer:
    """A UDP socket that waits for datagrams."""

    def __init__(self, host=HOST):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.address = from_kernel(self.socket.getsockname())

    async def receive(self):
        """Return the next datagram and its source."""
        async with asyncio.timeout(10):
            data, source = await asyncio.get_running_loop().sock_recvfrom(self.socket, 2048)
        return data, from_kernel(source)

    def nothing_waits(self):
        try:
            self.socket.recvfrom(2048)
        except BlockingIOError:
            return True
        return False

    def send(self, data, to):
        self.socket.sendto(data, to)


class Owner(Peer):
    """A transceiver's inner side: SPP on and off."""

    def __init__(self, slot, generation=1):
        super().__init__()
        self.slot, self.generation = slot, generation

    def member(self, **fields):
        return Member(
            slot=self.slot, generation=self.generation, address=self.address.host, port=self.address.port, **fields
        )

    def ufrag(self, nonce=1, keys=KEYS, epoch=1):
        return encode_hint(Hint(epoch, CLUSTER, self.slot, self.generation, nonce), keys)

    def check(self, password=None, keys=KEYS, epoch=1):
        name = self.ufrag(keys=keys, epoch=epoch)
        key = ice_pwd(name, epoch, keys) if password is None else password
        return build_binding_request(b"t" * 12, f"{name}:cccc", key.encode())

    async def receive_spp(self):
        """Return client, relay and payload of the next datagram."""
        data, source = await self.receive()
        client, relay = decode_spp(data)
        assert source == relay
        return client, relay, data[HEADER_BYTES:]

    def send_spp(self, data, client, relay, to=None):
        self.send(encode_spp(client, relay) + data, to or relay)


class RunningRelay:
    """The process, the files it works from, and what it says about itself."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.topology_file, self.keys_file = directory / "topology.json", directory / "keys.json"
        self.write_keys(KEYS)
        self.settings = RelaySettings.model_validate(
            {
                "cluster_id": CLUSTER,
                "topology": str(self.topology_file),
                "hint_keys_file": str(self.keys_file),
                "public_address": HOST,
                "public_port": 0,
                "inner_address": HOST,
                "inner_port": 0,
                "leave_grace_s": 0,
                **settings,
            }
        )
        self.process = RelayProcess(self.settings, TopologyFile(self.topology_file))

    def write_topology(self, *members, relays=()):
        pools = (Pool(name="agents", members=members),)
        self._write(self.topology_file, Topology(cluster=CLUSTER, relays=relays, pools=pools).dump())

    def entry(self, **fields):
        """This relay as a topology names it."""
        inner = Endpoint(address=self.inner.host, port=self.inner.port)
        return Relay(name="fra-node-a", inner=(inner,), **fields)

    def write_keys(self, keys):
        self._write(self.keys_file, keys.to_json())

    def _write(self, path, text):
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)

    @property
    def public(self):
        return self.process.public

    @property
    def inner(self):
        return self.process.inner

    async def get(self, path):
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            return await http.get(f"http://{self.inner.host}:{self.inner.port}{path}")

    async def metrics(self):
        """Return every sample of a scrape, by its name with labels."""
        lines = (await self.get("/metrics")).text.splitlines()
        return {name: float(value) for name, value in (one.rsplit(" ", 1) for one in lines if not one.startswith("#"))}

    async def drops(self):
        """Return the counters that moved, as a scrape sees them."""
        samples = await self.metrics()
        counts = {reason: samples[f'voicefleet_relay_drops_total{{reason="{reason}"}}'] for reason in DropReason}
        return {reason: count for reason, count in counts.items() if count}


@contextlib.asynccontextmanager
async def running_relay(directory, *owners, **settings):
    """Start a relay that knows these owners."""
    relay = RunningRelay(directory, **settings)
    relay.write_topology(*(owner.member() for owner in owners))
    await relay.process.start(patience_s=0)
    try:
        yield relay
    finally:
        await relay.process.stop()


async def bind(relay, client, owner):
    """Make a flow as a client does: its check reaches the owner."""
    client.send(owner.check(), relay.public)
    await owner.receive_spp()


async def until(condition):
    """Wait for what another task will do."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
