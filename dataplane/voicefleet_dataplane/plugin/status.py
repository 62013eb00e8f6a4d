"""`kubectl voicefleet status`: the fleet at a glance, problems first. Pure: a view in, a report out."""

from dataclasses import dataclass, field
from typing import Any

from voicefleet_contract import names
from voicefleet_dataplane.plugin.fleet import FleetView, condition, is_ready
from voicefleet_dataplane.plugin.kubectl import Object

# condition → the status that is a problem
_WRONG = {"Ready": "False", "Stalled": "True", "PortsAllocated": "False", "RingConverged": "False"}
_POOR_MOS = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong, what goes on, what there is."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    relays: list[dict[str, Any]] = field(default_factory=list)
    pools: list[dict[str, Any]] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """No problem."""
        return not self.problems


def report(fleet: FleetView) -> Report:
    """Return the report."""
    found = Report()
    if not fleet.pools and not fleet.relays:
        found.problems.append(
            "no VoiceRelay and no Transceiver in this namespace: kubectl apply -f examples/fleet.yaml"
        )
    if fleet.topology_problem:
        found.problems.append(f"topology: {fleet.topology_problem}: is the operator running?")
    if fleet.sessions_problem:
        found.notes.append(f"sessions cannot be listed: {fleet.sessions_problem}")
    for resource in (*fleet.relays, *fleet.pools):
        _judge(resource, found)
    for pod in fleet.pods:
        _judge_pod(pod, found)
    found.relays.extend(_relay_row(fleet, relay) for relay in fleet.relays)
    found.pools.extend(_pool_row(fleet, pool) for pool in fleet.pools)
    return found


def _judge(resource: Object, found: Report) -> None:
    who = f"{resource['kind']} {resource['metadata']['name']}"
    generation = resource["metadata"].get("generation")
    if resource.get("status", {}).get("observedGeneration") != generation:
        found.notes.append(f"{who}: the operator has not seen generation {generation} yet")
    for kind, wrong in _WRONG.items():
        said = condition(resource, kind)
        if said.get("status") == wrong:
            found.problems.append(
                f"{who}: {kind}={wrong} {said.get('reason', '')}: {said.get('message', '')}".rstrip(": ")
            )
    for kind in ("Reconciling", "Draining"):
        said = condition(resource, kind)
        if said.get("status") == "True":
            found.notes.append(f"{who}: {kind}: {said.get('message', '')}".rstrip(": "))


def _judge_pod(pod: Object, found: Report) -> None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        found.notes.append(f"pod {name}: is leaving")
        return
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            found.problems.append(f"pod {name}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": "))
        elif container.get("restartCount", 0) > 2:
            found.notes.append(f"pod {name}: restarted {container['restartCount']} times")
    if status.get("phase") == "Pending":
        said = condition(pod, "PodScheduled")
        if said.get("status") == "False":
            found.problems.append(f"pod {name}: not scheduled: {said.get('message', '')}")


def _relay_row(fleet: FleetView, relay: Object) -> dict[str, Any]:
    name = relay["metadata"]["name"]
    pods = [pod for pod in fleet.pods if pod["metadata"].get("labels", {}).get(names.LABEL_RELAY) == name]
    mine = [one for one in fleet.sessions if str(one["status"].get("relay", "")).startswith(f"{name}-")]
    return {
        "relay": name,
        "region": relay["spec"]["location"]["region"],
        "ready": f"{sum(map(is_ready, pods))}/{len(pods)}",
        "advertises": ", ".join(_endpoints(fleet, name)) or "nothing",
        "sessions": len(mine),
    }


def _endpoints(fleet: FleetView, relay: str) -> list[str]:
    relays = fleet.topology.topology.relays if fleet.topology is not None else ()
    return [str(end.as_address()) for one in relays if one.relay == relay for end in one.advertise]


def _pool_row(fleet: FleetView, pool: Object) -> dict[str, Any]:
    name, status = pool["metadata"]["name"], pool.get("status", {})
    mine = [one for one in fleet.sessions if one["spec"]["pool"] == name]
    capacity = int(pool["spec"].get("capacity", {}).get("sessions", 0)) * int(status.get("readyReplicas") or 0)
    scores = [one["status"]["mos"] for one in mine if "mos" in one["status"]]
    return {
        "pool": name,
        "ready": f"{status.get('readyReplicas', 0)}/{pool['spec'].get('replicas', 1)}",
        "draining": status.get("drainingReplicas", 0),
        "sessions": len(mine),
        "capacity": capacity,
        "used": f"{100 * len(mine) / capacity:.0f} %" if capacity else "",
        "median MOS": sorted(scores)[len(scores) // 2] if scores else None,
        "poor calls": sum(score < _POOR_MOS for score in scores),
        "ports": status.get("ports", ""),
        "ring epoch": status.get("ringEpoch"),
    }
