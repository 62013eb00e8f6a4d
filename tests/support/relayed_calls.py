"""One relay core before two transceiver cores, and clients behind it: calls as an attacker finds them. One thread, simulated time."""

from tests.support.transceiver import CLIENT, HINT_KEYS, RELAY, TOPOLOGY, Client, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import Member, Pool, Topology, TopologyIndex
from voicefleet_dataplane.core.relay.check_limits import CheckLimits
from voicefleet_dataplane.core.relay.relay import Relay

OWNERS = {5: Address("10.0.0.10", 20_000), 6: Address("10.0.0.11", 20_001)}  # by slot
ATTACKER = Address("203.0.113.66", 666)


class RelayedClient(Client):
    """What it sends comes to the relay; `address` says from where it seems to come."""

    def send(self, datagram, *, address=None, relay=None):
        return self.world.fleet.receive(datagram, address or self.address)


class RelayedWorld(World):
    """A transceiver whose packets all go through the relay."""

    def __init__(self, fleet, slot):
        self.fleet = fleet
        self.address = OWNERS[slot]
        super().__init__(slot=slot, seed=slot)

    def call(self, client=CLIENT, **options):
        return RelayedClient(self, client, RELAY, **options)

    def drain(self):
        """What came out of the relay, and for whom."""
        verdicts = [
            self.fleet.relay.receive_inside(datagram, self.address, self.now) for datagram, _ in super().drain()
        ]
        return [verdict for verdict in verdicts if isinstance(verdict, tuple)]


class Fleet:
    """Owners 5 and 6 behind one relay."""

    def __init__(self, **limits):
        self.relay = Relay(RELAY, HINT_KEYS, max_flows=100, idle_s=30.0, limits=CheckLimits(**limits))
        members = tuple(
            Member(slot=slot, generation=2, address=address.host, port=address.port) for slot, address in OWNERS.items()
        )
        relays = TOPOLOGY.topology.relays
        self.relay.set_topology(
            TopologyIndex(Topology(cluster=7, pools=(Pool(name="agents", members=members),), relays=relays))
        )
        self.worlds = {slot: RelayedWorld(self, slot) for slot in OWNERS}

    @property
    def now(self):
        return self.worlds[5].now

    def receive(self, datagram, client):
        """A datagram from outside; gives why it was dropped, by whomever."""
        verdict = self.relay.receive_outside(datagram, client, self.now)
        if not isinstance(verdict, tuple):
            return verdict
        owner = next(world for world in self.worlds.values() if world.address == verdict[1])
        return owner.core.receive(verdict[0], RELAY, self.now)

    def settle(self):
        for world in self.worlds.values():
            world.settle()

    def pass_time(self, seconds):
        for world in self.worlds.values():
            world.pass_time(seconds)
        self.relay.advance(self.now)

    def flow(self, client):
        return self.relay.flows.by_client.get(client)
