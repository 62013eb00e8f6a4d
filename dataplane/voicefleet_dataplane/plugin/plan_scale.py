"""`kubectl voicefleet plan scale POOL N`: what would move, before it does. Pure.

The share of the plain ring that changes hands is measured on keys, not taken from 1/n. Calls in progress never move; with
bounded loads the members next on the ring take a little more than this says.
"""

from dataclasses import dataclass
from typing import Any

from voicefleet_contract.outside import is_digits, parse_integer
from voicefleet_contract.ring import Ring
from voicefleet_dataplane.plugin.fleet import FleetView
from voicefleet_dataplane.plugin.kubectl import Object

_KEYS = 4_000


class NoSuchPool(ValueError):  # noqa: N818  # the person's mistake, not ours
    """There is no Transceiver of that name."""


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """What would happen."""

    now: int
    wanted: int
    moved_share: float
    adds: tuple[int, ...]  # slots, as far as they can be known before
    drains: tuple[tuple[int, str, int], ...]  # slot, pod, its sessions
    waiting_sessions: int
    capacity: int
    sessions: int
    ports_free: int
    ports_needed: int
    problems: tuple[str, ...]

    def lines(self) -> dict[str, Any]:
        """Return it for people and for JSON."""
        return {
            "replicas": f"{self.now} → {self.wanted}",
            "new calls that go to another member": f"{100 * self.moved_share:.1f} %",
            "calls in progress that move": 0,
            "members added": len(self.adds),
            "members drained (emptiest first)": [
                f"{pod} (slot {slot}): {count} calls" for slot, pod, count in self.drains
            ],
            "calls waited for": self.waiting_sessions,
            "capacity afterwards": f"{self.capacity} sessions, {self.sessions} are there now",
            "port numbers": f"{self.ports_needed} needed, {self.ports_free} free in the range",
            "problems": list(self.problems),
        }


def plan_scale(fleet: FleetView, name: str, wanted: int) -> ScalePlan:
    """Return what scaling a pool would do. Raises NoSuchPool."""
    pool = fleet.pool(name)
    if pool is None:
        known = ", ".join(one["metadata"]["name"] for one in fleet.pools) or "none"
        raise NoSuchPool(f"no Transceiver {name!r} in this namespace; there are: {known}")
    active = fleet.topology.active(name) if fleet.topology is not None else {}
    loads = dict.fromkeys(active, 0)
    for one in fleet.sessions:
        if one["spec"]["slot"] in loads:
            loads[one["spec"]["slot"]] += 1
    leaving = sorted(active, key=lambda slot: (loads[slot], -slot))[: max(0, len(active) - wanted)]
    adds = _new_slots(fleet, max(0, wanted - len(active)))
    before = {slot: member.weight for slot, member in active.items()}
    after = {slot: weight for slot, weight in before.items() if slot not in leaving} | dict.fromkeys(
        adds, _weight(before)
    )
    free = _free_ports(pool)
    capacity = wanted * int(pool["spec"].get("capacity", {}).get("sessions", 0))
    problems = []
    if len(adds) > free:
        problems.append(f"the range has {free} free numbers for {len(adds)} new members: widen spec.ports")
    if sum(loads.values()) > capacity:
        problems.append(f"{sum(loads.values())} sessions are there and {capacity} fit: new calls would be refused")
    return ScalePlan(
        now=len(active),
        wanted=wanted,
        moved_share=moved_share(before, after),
        adds=adds,
        drains=tuple((slot, active[slot].name, loads[slot]) for slot in leaving),
        waiting_sessions=sum(loads[slot] for slot in leaving),
        capacity=capacity,
        sessions=sum(loads.values()),
        ports_free=free,
        ports_needed=len(adds),
        problems=tuple(problems),
    )


def moved_share(before: dict[int, int], after: dict[int, int]) -> float:
    """Return the share of keys whose first owner differs between two rings (slot → weight)."""
    if not before or not after:
        return float(before != after)
    old, new = Ring(before), Ring(after)
    keys = [number.to_bytes(4, "big") for number in range(_KEYS)]
    return sum(next(old.owners(key)) != next(new.owners(key)) for key in keys) / _KEYS


def _new_slots(fleet: FleetView, count: int) -> tuple[int, ...]:
    """The operator gives the lowest free slots; which those are only its ledger knows for sure."""
    pools = fleet.topology.topology.pools if fleet.topology is not None else ()
    held = {member.slot for pool in pools for member in pool.members}
    free = (slot for slot in range(len(held) + count) if slot not in held)
    return tuple(next(free) for _ in range(count))


def _weight(weights: dict[int, int]) -> int:
    return max(weights.values(), default=100)


def _free_ports(pool: Object) -> int:
    ports = pool["spec"]["ports"]
    used = str(pool.get("status", {}).get("ports", "0/0")).partition("/")[0]
    return int(ports["max"]) - int(ports["min"]) + 1 - (parse_integer(used, 65_536) if is_digits(used) else 0)
