"""Which ingress a new call gets: the relay nearest to the caller, among those that are ready.

Where the caller is, in this order: a region that the request names; the place of its address, if a database knows it;
the gateway's own region or place. Relays at one place share calls by their weights.

Owns: the order of relays for one call. Does not own: the owner (contract.ring), the database (shell), liveness (the
operator publishes relay states).
"""

import hashlib
from collections.abc import Iterable
from math import log

from voicefleet_contract.topology import Relay, RelayState
from voicefleet_dataplane.core.gateway.geo import Place, great_circle_km

_SAME_PLACE_KM = 1.0  # relays closer together than this share calls by weight


class UnknownRegionError(ValueError):
    """The request names a region in which no relay stands. ``regions`` are those that exist."""

    def __init__(self, region: str, regions: list[str]) -> None:
        super().__init__(f"no relay stands in region {region!r}; regions: {', '.join(regions) or 'none'}")
        self.regions = regions


def ready_relays(relays: Iterable[Relay]) -> list[Relay]:
    """Return the relays that may be given to new calls: active, with a weight, reachable from both sides."""
    return [
        relay
        for relay in relays
        if relay.state is RelayState.ACTIVE and relay.weight > 0 and relay.advertise and relay.inner
    ]


def region_place(relays: Iterable[Relay], region: str) -> Place:
    """Return where a region is: the place of its first relay by name, ready or not. Raises UnknownRegionError."""
    ordered = sorted(relays, key=lambda relay: relay.name)
    for relay in ordered:
        if relay.region == region:
            return Place(relay.latitude, relay.longitude)
    raise UnknownRegionError(region, sorted({relay.region for relay in ordered if relay.region}))


def rank_ingresses(relays: Iterable[Relay], caller: Place, key: bytes, region: str = "") -> list[Relay]:
    """Return the ready relays, best first: those of ``region``, then the nearest; ``key`` spreads calls over equals.

    A region whose relays are all away falls back to the nearest of the others: a longer first hop beats no call.
    """

    def order(relay: Relay) -> tuple[bool, int, float, str]:
        distance_km = great_circle_km(caller, Place(relay.latitude, relay.longitude))
        elsewhere = bool(region) and relay.region != region
        return (elsewhere, int(distance_km / _SAME_PLACE_KM), _weighted_draw(relay, key), relay.name)

    return sorted(ready_relays(relays), key=order)


def _weighted_draw(relay: Relay, key: bytes) -> float:
    """Rendezvous hashing with weights: the least of -ln(u)/weight falls on a relay as often as its weight says."""
    digest = hashlib.blake2b(relay.name.encode(), key=key[:64], digest_size=8, person=b"vf-ingress").digest()
    uniform = (int.from_bytes(digest, "big") + 1) / 2**64
    return -log(uniform) / relay.weight
