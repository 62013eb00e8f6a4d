"""`kubectl voicefleet trace CALL|UFRAG`: client → relay → owner → node, with what each hop says. Pure.

A hop's evidence is marked: ``ok`` seen, ``?`` not known here, ``no`` contradicted.
"""

from dataclasses import dataclass

from voicefleet_contract.call_id import PREFIX, CallId, CallIdError, peek_call_id
from voicefleet_contract.hint import Hint, HintError, peek_hint
from voicefleet_contract.topology import Member
from voicefleet_dataplane.plugin.fleet import FleetView, is_ready
from voicefleet_dataplane.plugin.kubectl import Object


class NotAName(ValueError):  # noqa: N818  # it names no error of ours, it is the person's
    """Neither a call id nor a server ufrag."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One line of the way."""

    what: str
    mark: str
    says: str


def trace(fleet: FleetView, text: str) -> list[Hop]:
    """Return the hops of a call. Raises NotAName."""
    named = _read(text)
    kind = "call id" if isinstance(named, CallId) else "server ufrag"
    fields = f"cluster {named.cluster}, slot {named.slot}, generation {named.generation}"
    hops = [Hop(kind, "ok", f"{fields} (fields are read here; their MAC is checked by relays and gateways)")]
    if fleet.topology is None:
        return [*hops, Hop("topology", "no", fleet.topology_problem)]
    if named.cluster != fleet.topology.cluster:
        return [*hops, Hop("cluster", "no", f"this fleet is cluster {fleet.topology.cluster}: look there")]
    session = _session(fleet, text, named)
    member = fleet.topology.member(named.slot, named.generation)
    return [
        *hops,
        *_client(fleet, session),
        *_relay(fleet, session),
        *_owner(fleet, named, member),
        *_node(fleet, member),
    ]


def _read(text: str) -> CallId | Hint:
    try:
        if text.startswith(PREFIX):
            return peek_call_id(text)
        return peek_hint(text.partition(":")[0])  # a whole STUN USERNAME is server_ufrag:client_ufrag
    except (CallIdError, HintError) as error:
        raise NotAName(f"{text!r} is neither a call id (call_…) nor a server ufrag: {error}") from None


def _session(fleet: FleetView, text: str, named: CallId | Hint) -> Object | None:
    if isinstance(named, CallId):
        return next((one for one in fleet.sessions if one["metadata"]["name"] == text), None)
    mine = [
        one
        for one in fleet.sessions
        if (one["spec"]["slot"], one["spec"]["generation"]) == (named.slot, named.generation)
    ]
    return mine[0] if len(mine) == 1 else None  # a ufrag does not name its call; alone on a slot it is that one


def _client(fleet: FleetView, session: Object | None) -> list[Hop]:
    if session is None:
        why = fleet.sessions_problem or "the registry has no such session now (ended, or a ufrag of one among several)"
        return [Hop("session", "?", why)]
    status = session["status"]
    quality = ", ".join(
        f"{name} {status[key]}{unit}"
        for name, key, unit in (("RTT", "rttMs", " ms"), ("jitter", "jitterMs", " ms"), ("MOS", "mos", ""))
        if key in status
    )
    loss = f", loss {100 * status['lossRatio']:.2f} %" if "lossRatio" in status else ""
    where = session["spec"].get("clientNetwork") or "not heard of yet"
    return [
        Hop("session", "ok", f"{session['metadata']['name']} is {status['state']}"),
        Hop("client", "ok", f"{where}; {quality or 'no report yet'}{loss}"),
    ]


def _relay(fleet: FleetView, session: Object | None) -> list[Hop]:
    assert fleet.topology is not None
    if session is None:
        return [Hop("relay", "?", "any of the fleet's: each routes by the ufrag alone")]
    name = session["status"].get("relay", "")
    relay = next((one for one in fleet.topology.topology.relays if one.name == name), None)
    if relay is None:
        return [Hop("relay", "no", f"{name or 'none'} is not in the topology")]
    ingress = ", ".join(str(one.as_address()) for one in relay.advertise)
    mark = "ok" if relay.state == "active" else "no"
    return [Hop("relay", mark, f"{name} on {relay.node}, region {relay.region}, {relay.state}, advertises {ingress}")]


def _owner(fleet: FleetView, named: CallId | Hint, member: Member | None) -> list[Hop]:
    if member is None:
        return [
            Hop(
                "owner",
                "no",
                f"the topology knows no slot {named.slot} in generation {named.generation}: its pod is gone, and the call with it",
            )
        ]
    pod = fleet.pod(member.name)
    says = f"{member.name} at {member.as_address()}, {member.state}"
    if pod is None:
        return [Hop("owner", "no", f"{says}; there is no such pod")]
    ready = "ready" if is_ready(pod) else "not ready"
    restarts = sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or [])
    mark = "ok" if is_ready(pod) and not restarts else "no"
    return [Hop("owner", mark, f"{says}; pod {ready}" + (f", restarted {restarts} times" if restarts else ""))]


def _node(fleet: FleetView, member: Member | None) -> list[Hop]:
    if member is None:
        return []
    others = sum(one["status"].get("node") == member.node for one in fleet.sessions)
    return [Hop("node", "ok", f"{member.node}" + (f", {others} sessions on it" if fleet.sessions else ""))]
