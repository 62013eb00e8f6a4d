"""Bounds of one listener, and the places that connections hold until their callers have proved who they are.

A place is held from accept until the connection ends, or until a key or a certificate was accepted on it: limits of keys
hold from there. Behind a trusted forwarder all callers have one address, so its network is bounded in all only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from voicefleet_contract.networks import Network, is_within, limit_key


class Drop(StrEnum):
    """Why a connection was refused or ended."""

    ADDRESS_CONNECTIONS = "connections_of_address"
    ALL_CONNECTIONS = "connections"
    PROXY_HEADER = "proxy_header"
    HANDSHAKE = "handshake"
    HEAD_BYTES = "head_bytes"
    HEAD_DEADLINE = "head_deadline"
    BODY_DEADLINE = "body_deadline"
    READER_DEADLINE = "reader_deadline"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener allows. Connections are those without an accepted key or certificate; times are seconds."""

    connections: int = 256
    connections_of_address: int = 64
    max_head_bytes: int = 16 * 1024  # request line and headers of one request
    handshake_s: float = 10.0  # from accept: PROXY header, then TLS
    head_s: float = 10.0
    body_s: float = 20.0
    reader_s: float = 20.0  # without room for more in what the client has still to read
    idle_s: float = 60.0  # between requests, the last answer's bytes included; of callers without a key
    proxy_networks: tuple[Network, ...] = ()  # connections from here begin with a PROXY header, no others do
    forwarder_networks: tuple[Network, ...] = ()  # many callers in one address, told by a header of HTTP


class ConnectionPlace:
    """One connection's; ``end`` ends that connection, to make room for another."""

    __slots__ = ("end", "key")

    def __init__(self, key: str | None) -> None:
        self.key = key  # whose it is; None: nobody knows, or one of a forwarder's many
        self.end: Callable[[], None] = lambda: None


class Places:
    """Connections in their places, counted by address (IPv6: by /64) and in all.

    When all are taken, the oldest one of whoever has most goes: a flood from few addresses is in its own way, and from many
    it ends what is old. With 256 places, who needs a tenth of a second to show a key is kept out by 2,560 others a second.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._of: dict[str | None, dict[ConnectionPlace, None]] = {}  # by whose they are, each oldest first
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def enter(self, address: str | None) -> ConnectionPlace | None:
        """Take a place; None if this address has too many. None for ``address``: whose it is, is not known yet, or never."""
        key = None if address is None else limit_key(address)
        if not self._has_room(key):
            return None
        if self._all >= self._bounds.connections:
            crowd: dict[ConnectionPlace, None] = max(self._of.values(), key=len)
            oldest = next(iter(crowd))
            self.leave(oldest)
            oldest.end()
        place = ConnectionPlace(key)
        self._of.setdefault(key, {})[place] = None
        self._all += 1
        return place

    def name(self, place: ConnectionPlace, address: str) -> bool:
        """Say whose a place is; False if that address has too many."""
        key = limit_key(address)
        if not self._has_room(key):
            return False
        if self._remove(place):
            place.key = key
            self._of.setdefault(key, {})[place] = None
        return True

    def leave(self, place: ConnectionPlace) -> None:
        """Give a place back, if it was not taken away."""
        if self._remove(place):
            self._all -= 1

    def _has_room(self, key: str | None) -> bool:
        return key is None or len(self._of.get(key, ())) < self._bounds.connections_of_address

    def _remove(self, place: ConnectionPlace) -> bool:
        own = self._of.get(place.key, {})
        if place not in own:
            return False
        del own[place]
        if not own:
            del self._of[place.key]
        return True

    def is_proxy(self, address: str) -> bool:
        """Tell whether connections from here begin with a PROXY header."""
        return is_within(address, self._bounds.proxy_networks)

    def is_one_client(self, address: str) -> bool:
        """Tell whether an address is one client's, and not a forwarder's of many."""
        return not is_within(address, self._bounds.forwarder_networks)
