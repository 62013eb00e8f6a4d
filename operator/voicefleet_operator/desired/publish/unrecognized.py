"""Resources that this release does not understand: an older operator beside a newer CRD finds a value that it does not know.

Everything of theirs stays as it is: slots, pods, objects, and their part of the topology, in which only what is observed of
pods moves. Were such a resource taken for none, its slots would be given away and its calls would lose their owners. It is
reconciled again by an operator that understands it, or when its spec is one that this one does.
"""

from collections.abc import Collection, Iterable, Mapping

from voicefleet_contract import names
from voicefleet_contract.topology import MemberState, Pool, Relay, RelayState, Topology
from voicefleet_operator.desired.publish.ring import next_epoch
from voicefleet_operator.desired.state import Component, Fleet, Manifest, Pod, Unread

KINDS = ("VoiceRelay", "Transceiver")


def kept_pools(fleet: Fleet, published: Topology) -> list[Pool]:
    """Return the published pools of Transceivers that are not understood, with their pods as they are now."""
    return [_kept_pool(fleet, pool) for pool in published.pools if fleet.is_unread("Transceiver", pool.name)]


def _kept_pool(fleet: Fleet, pool: Pool) -> Pool:
    members = tuple(
        member.model_copy(update={"state": _member_state(pod)})
        for member in pool.members
        if (pod := fleet.pods.get(member.name)) is not None and not pod.finished
    )
    return Pool(name=pool.name, ring_epoch=next_epoch(pool.members, pool.ring_epoch, 0, members), members=members)


def _member_state(pod: Pod) -> MemberState:
    if pod.leaving:
        return MemberState.DRAINING
    return MemberState.ACTIVE if pod.ready and not pod.ejected else MemberState.STARTING


def kept_relays(fleet: Fleet, published: Topology) -> list[Relay]:
    """Return the published relays of VoiceRelays that are not understood; one whose pod is not ready takes no new calls."""
    ready = {
        (pod.resource, pod.node)
        for pod in fleet.pods.values()
        if pod.component is Component.RELAY and pod.ready and not pod.leaving
    }
    kept = [relay for relay in published.relays if fleet.is_unread("VoiceRelay", relay.relay)]
    return [relay.model_copy(update={"state": _relay_state(relay, ready)}) for relay in kept]


def _relay_state(relay: Relay, ready: Collection[tuple[str, str]]) -> RelayState:
    serves = (relay.relay, relay.node) in ready and relay.advertise and not relay.leaving
    return RelayState.ACTIVE if serves else RelayState.DRAINING


def unread_status(unread: Unread, at: str, ours: Iterable[str]) -> Manifest | None:
    """Return the status that says so, and leaves the rest as it was; None when it says so already."""
    before: Mapping[str, Mapping[str, str]] = {c["type"]: c for c in unread.status.get("conditions") or ()}
    text = f"this operator does not understand the resource, and changes nothing of it: {unread.problem}"[:1000]
    was = before.get("Stalled", {})
    said = {
        "type": "Stalled",
        "status": "True",
        "reason": "NotUnderstood",
        "message": f"{text}; run the operator and the {names.GROUP} CRDs of one release",
        "observedGeneration": unread.generation,
        "lastTransitionTime": was.get("lastTransitionTime", at) if was.get("status") == "True" else at,
    }
    if said == was:
        return None
    kept = [dict(before[kind]) for kind in ours if kind in before and kind != "Stalled"]
    return {**unread.status, "conditions": [*kept, said]}
