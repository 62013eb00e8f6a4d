"""Where a client's packets lead: from its address, from a relay's SPP header, from a relay's flow port, to a session.

A route is made by an authentic check and by nothing else. Headers and flow ports are short cuts to it, and go with it.

Owns: the three tables. Does not own: what makes a check authentic, or an announcement (core/transceiver/transceiver.py).
"""

from dataclasses import dataclass, field

from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.call.paths import Path
from voicefleet_dataplane.core.call.session import Session

HEADERS_REMEMBERED = 65_536


@dataclass(slots=True)
class Route:
    """Where a client address leads."""

    session: Session
    path: Path
    headers: list[bytes] = field(default_factory=list)  # the SPP headers that were found to lead here
    tuples: list[Address] = field(default_factory=list)  # the addresses that its bare media may come from


class Routes:
    """Read the tables; write them by these methods."""

    def __init__(self, inner_host: str) -> None:
        self.by_client: dict[Address, Route] = {}
        self.by_header: dict[bytes, tuple[Address, Route]] = {}  # with the relay that it was found to come from
        self.by_tuple: dict[Address, tuple[Address, Route]] = {}  # source of bare media → its relay, and whose it is
        self._inner_host = inner_host

    def add(self, client: Address, session: Session, path: Path) -> Route:
        """A check has shown that a client address leads to a session; what it led to before is forgotten."""
        self.forget(client)
        route = self.by_client[client] = Route(session, path)
        return route

    def forget(self, client: Address, session: Session | None = None) -> None:
        """A client address leads nowhere; with ``session``: unless it leads to another one."""
        route = self.by_client.get(client)
        if route is not None and (session is None or route.session is session):
            del self.by_client[client]
            for header in route.headers:
                self.by_header.pop(header, None)
            for bare in route.tuples:
                del self.by_tuple[bare]

    def remember_header(self, header: bytes, relay: Address, route: Route) -> None:
        """Its next packet is looked up once."""
        if len(self.by_header) >= HEADERS_REMEMBERED:
            self.by_header.clear()  # a cache: everybody is looked up once more
        if header not in route.headers:
            route.headers.append(header)
        self.by_header[header] = (relay, route)

    def may_come_bare(self, client: Address, proxy: Address, relay: Address) -> bool:
        """Say whether media of ``client`` may come from, and go to, the address that a relay's header names."""
        if proxy == relay:
            return False  # a relay that puts a header on everything
        if proxy.host != relay.host and not (proxy == client and relay.host == self._inner_host):
            return False
        known = self.by_tuple.get(proxy)
        # A relay's ports are its own to give out again; two relays of one host must not have the same one.
        return known is None or known[0] == relay or known[1].path.client == client

    def remember_tuple(self, bare: Address, relay: Address, route: Route) -> None:
        """Bare media from there is this client's from now on."""
        known = self.by_tuple.get(bare)
        if known is not None and known[1] is not route:
            known[1].tuples.remove(bare)
            if known[1].path.bare == bare:
                known[1].path.bare = None  # what goes there now reaches another client
        if bare not in route.tuples:
            route.tuples.append(bare)
        self.by_tuple[bare] = (relay, route)

    def set_topology(self, topology: TopologyIndex) -> None:
        """Relays that left it are strangers: their headers are looked up anew, their flow ports lead nowhere."""
        self.by_header.clear()
        for bare, (relay, route) in list(self.by_tuple.items()):
            if topology.relay_at(relay) is None:
                del self.by_tuple[bare]
                route.tuples.remove(bare)
