"""`kubectl voicefleet explain placement`: which ingress and which owners a would-be caller would get, and why. Pure."""

from typing import Any

from voicefleet_dataplane.core.gateway.geo import Place, great_circle_km
from voicefleet_dataplane.core.gateway.placement import rank_ingresses, ready_relays, region_place
from voicefleet_dataplane.plugin.fleet import FleetView

_KEY = b"a would-be caller"


def explain_placement(fleet: FleetView, pool: str, caller: Place | None, region: str) -> list[dict[str, Any]]:
    """Return one row for each relay, best first, then one for each member of the ring. Raises UnknownRegionError."""
    assert fleet.topology is not None
    relays = fleet.topology.topology.relays
    place = region_place(relays, region) if region and caller is None else caller
    ranked = rank_ingresses(relays, place or Place(0.0, 0.0), _KEY, region)
    rows = []
    for number, relay in enumerate(ranked, 1):
        distance = great_circle_km(place, Place(relay.latitude, relay.longitude)) if place is not None else None
        why = "asked-for region" if region and relay.region == region else "nearest" if number == 1 else "farther"
        rows.append(
            {
                "step": f"ingress {number}",
                "who": relay.name,
                "where": relay.region,
                "why": why + (f", {distance:,.0f} km" if distance is not None else ", the caller's place is not known"),
            }
        )
    usable = {relay.name for relay in ready_relays(relays)}
    rows += [
        {"step": "not an ingress", "who": relay.name, "where": relay.region, "why": _why_not(relay.state, relay.weight)}
        for relay in relays
        if relay.name not in usable
    ]
    active = fleet.topology.active(pool)
    for number, slot in enumerate(fleet.topology.ring(pool).owners(_KEY), 1):
        why = "first on the ring for this key" if number == 1 else "asked when those before it refuse or do not answer"
        rows.append({"step": f"owner {number}", "who": active[slot].name, "where": active[slot].node, "why": why})
    if not active:
        rows.append({"step": "no owner", "who": pool, "where": "", "why": "no member of this pool takes calls"})
    return rows


def _why_not(state: str, weight: int) -> str:
    if state != "active":
        return f"it is {state}"
    return "its weight is 0" if weight <= 0 else "it has no address to advertise, or none inside"
