"""Port numbers that were found taken on a node: which, and until when nobody is given them.

A process that cannot bind its number says so with its exit code, and its pod is replaced: with the pod the news would be
gone, and the number given out again. So it stands in a ConfigMap, written **before** the pod is let go:
``{"node-b_20005": "1764110000"}``, Unix seconds. An entry whose time has come is dropped at the next write, not by one.

Owns: the times and their spelling. Does not own: who may use which number (ports).
"""

from collections.abc import Iterable, Mapping

from voicefleet_contract.outside import parse_integer, parse_number
from voicefleet_operator.desired.state import Place

NAME = "voicefleet-ports"
QUARANTINE_S = 600.0


def extended(quarantine: Mapping[Place, float], places: Iterable[Place], now: float) -> dict[Place, float]:
    """Return the quarantine with more places in it, and without those whose time has come."""
    kept = {place: until for place, until in quarantine.items() if until > now}
    return kept | dict.fromkeys(places, now + QUARANTINE_S)


def quarantined_ports(quarantine: Mapping[Place, float], now: float) -> set[int]:
    """Return the numbers that nobody is given now."""
    return {place.port for place, until in quarantine.items() if until > now}


def encode_quarantine(quarantine: Mapping[Place, float]) -> dict[str, str]:
    """Return the ConfigMap's data."""
    return {f"{place.node}_{place.port}": f"{until:.0f}" for place, until in sorted(quarantine.items())}


def decode_quarantine(data: Mapping[str, str]) -> dict[Place, float]:
    """Read a ConfigMap's data. What cannot be read is left out: the worst that follows is one more failed bind."""
    found: dict[Place, float] = {}
    for key, value in data.items():
        node, _, port = key.rpartition("_")
        try:
            found[Place(node, parse_integer(port, 65_535))] = parse_number(value)
        except ValueError:
            continue
    return found
