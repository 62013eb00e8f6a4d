"""Bounds of one listener, and the places that connections hold until their callers have proved who they are.

A place is held from accept until the connection ends, or until a key or a certificate was accepted on it: limits of keys
hold from there. Behind a trusted forwarder all callers have one address, so its network is bounded in all only.
"""

from collections import Counter
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


class Places:
    """Connections in their places, counted by address (IPv6: by /64) and in all."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._by_address: Counter[str] = Counter()
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def enter(self) -> Drop | None:
        """Take a place among all; or say why there is none."""
        if self._all >= self._bounds.connections:
            return Drop.ALL_CONNECTIONS
        self._all += 1
        return None

    def enter_address(self, address: str) -> Drop | None:
        """Take a place among those of an address; or say why there is none."""
        key = limit_key(address)
        if self._by_address[key] >= self._bounds.connections_of_address:
            return Drop.ADDRESS_CONNECTIONS
        self._by_address[key] += 1
        return None

    def leave(self, address: str | None) -> None:
        """Give the place back, and the one among those of ``address`` if it was taken."""
        self._all -= 1
        if address is None:
            return
        key = limit_key(address)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    def is_proxy(self, address: str) -> bool:
        """Tell whether connections from here begin with a PROXY header."""
        return is_within(address, self._bounds.proxy_networks)

    def is_one_client(self, address: str) -> bool:
        """Tell whether an address is one client's, and not a forwarder's of many."""
        return not is_within(address, self._bounds.forwarder_networks)
