"""Kubernetes objects → the records of desired.state. Pure functions of one object each.

An object that cannot be read (made by hand, or by a version that knows more) raises UnreadableError, and is left alone.
"""

import json
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from voicefleet_contract import names
from voicefleet_contract.drain import DrainRequest, DrainRequestError, parse_drain
from voicefleet_contract.hint import MAX_GENERATION, MAX_SLOT
from voicefleet_contract.outside import parse_integer, parse_number
from voicefleet_contract.resources import TransceiverSpec, VoiceRelaySpec
from voicefleet_contract.topology import TopologyError, TopologySlice
from voicefleet_operator.desired.objects import (
    ANNOTATION_CAPACITY,
    ANNOTATION_DIGEST,
    ANNOTATION_DRAINING,
    ANNOTATION_GRAY,
    ANNOTATION_PAUSED,
)
from voicefleet_operator.desired.pool.gray import decode_verdict
from voicefleet_operator.desired.state import (
    Applied,
    Component,
    ForeignPod,
    Node,
    Pod,
    PoolResource,
    PortRefusal,
    RelayResource,
    Unread,
    Verdict,
)

Object = dict[str, Any]

# Reasons of a waiting container that time alone will not cure. The kubelet tells some of them in turns, with other words
# each time: they count as one and get no words, or a status would be written every few seconds.
_IN_TURNS = {"ErrImagePull": "ImagePullBackOff"}
_WORDLESS = frozenset({"CrashLoopBackOff", "ImagePullBackOff"})
_NO_FREE_PORT = "free ports for the requested pod ports"  # kube-scheduler's words
_TROUBLES = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)

# Taints by which node autoscalers announce that they are about to empty a node. kubectl cordons instead.
_LEAVING_TAINTS = frozenset({"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"})


class UnreadableError(ValueError):
    """An object does not say what we need of it; the text names it."""


def observe_pod(body: Object) -> Pod:
    """Read a pod of the dataplane. Raises UnreadableError."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        component = Component(labels.get(names.LABEL_COMPONENT, ""))
        transceiver = component is Component.TRANSCEIVER
        slot = parse_integer(labels[names.LABEL_SLOT], MAX_SLOT) if transceiver else -1
        generation = parse_integer(labels[names.LABEL_GENERATION], MAX_GENERATION) if transceiver else -1
        port = parse_integer(labels[names.LABEL_PORT], 65_535) if transceiver else 0
        capacity = parse_integer(annotations.get(ANNOTATION_CAPACITY, "0"), 1 << 31)
        draining = annotations.get(ANNOTATION_DRAINING)
        draining_since = None if draining is None else parse_number(draining)
    except (KeyError, ValueError) as error:
        raise UnreadableError(f"pod {metadata['name']}: label or annotation {error}") from None
    verdict = annotations.get(ANNOTATION_GRAY)
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    containers = status.get("containerStatuses") or []
    trouble, message = _trouble(conditions, containers)
    running = any("running" in c.get("state", {}) for c in containers)
    ready = conditions.get("Ready", {})
    resource = labels.get(names.LABEL_POOL if transceiver else names.LABEL_RELAY, "")
    drain, drain_problem = _drain(metadata)
    gone_at = metadata.get("deletionTimestamp")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        component=component,
        resource=resource,
        slot=slot,
        generation=generation,
        port=port,
        capacity=capacity,
        template=annotations.get(ANNOTATION_DIGEST, ""),
        node=spec.get("nodeName", ""),
        avoids=observe_avoided(spec) if transceiver and not spec.get("nodeName") else (),
        host_ip=status.get("hostIP", ""),
        running=running,
        ran=running or any(c.get("restartCount") or _ended(c) for c in containers),
        ready=ready.get("status") == "True",
        ready_since=_unix(ready.get("lastTransitionTime")) if ready.get("status") == "True" else 0.0,
        restarts=sum(c.get("restartCount", 0) for c in containers),
        finished=status.get("phase") in ("Failed", "Succeeded"),
        deleting=gone_at is not None,
        gone_at=None if gone_at is None else _unix(gone_at),
        idle=labels.get(names.LABEL_IDLE) == "true",
        drain=drain,
        drain_problem=drain_problem,
        draining_since=draining_since,
        verdict=None if verdict is None else _verdict(verdict),
        created_at=_unix(metadata.get("creationTimestamp")),
        trouble=trouble,
        trouble_message=message,
        port_refused=_port_refused(trouble, message, containers),
    )


def _verdict(text: str) -> Verdict | None:
    """Whose verdict is not understood is judged anew: its pod is a member like any other."""
    try:
        return decode_verdict(text)
    except ValueError:
        return None


def _ended(container: Object) -> Object | None:
    """Return how its process ended, if it does not run now."""
    state = container.get("state", {})
    if "running" in state:
        return None
    ended: Object | None = state.get("terminated") or container.get("lastState", {}).get("terminated")
    return ended


def _port_taken(container: Object) -> bool:
    return (_ended(container) or {}).get("exitCode") == names.EXIT_PORT_TAKEN


def _port_refused(trouble: str, message: str, containers: list[Object]) -> PortRefusal | None:
    if any(map(_port_taken, containers)):
        return PortRefusal.NODE
    return PortRefusal.SCHEDULER if trouble == "Unschedulable" and _NO_FREE_PORT in message else None


def observe_avoided(spec: Object) -> tuple[str, ...]:
    """Read which nodes a pod's affinity excludes by name."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    fields = [field for term in terms for field in term.get("matchFields") or [] if field["operator"] == "NotIn"]
    return tuple(sorted(name for field in fields for name in field["values"]))


def _trouble(conditions: dict[str, Object], containers: list[Object]) -> tuple[str, str]:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", str(scheduled.get("message", ""))[:300]
    for container in containers:
        waiting = container.get("state", {}).get("waiting") or {}
        if _port_taken(container):
            return "PortTaken", "a process on the node holds its port"
        if waiting.get("reason") in _TROUBLES:
            reason = _IN_TURNS.get(waiting["reason"], waiting["reason"])
            text = container.get("image", "") if reason in _WORDLESS else str(waiting.get("message", ""))[:300]
            return reason, text
    return "", ""


def observe_foreign_pod(body: Object) -> ForeignPod | None:
    """Read the host ports of somebody else's pod; None when it stands nowhere or declares none.

    On the host network a declared container port is a host port: the API server fills it in.
    """
    metadata, spec = body["metadata"], body.get("spec", {})
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    ports = frozenset(port["hostPort"] for c in containers for port in c.get("ports") or () if port.get("hostPort"))
    finished = body.get("status", {}).get("phase") in ("Failed", "Succeeded")
    if not ports or not spec.get("nodeName") or finished:
        return None
    return ForeignPod(f"{metadata['namespace']}/{metadata['name']}", spec["nodeName"], ports)


def observe_node(body: Object) -> Node:
    """Read a node."""
    spec = body.get("spec") or {}
    taints = [taint["key"] for taint in spec.get("taints") or [] if taint["key"] in _LEAVING_TAINTS]
    drain, drain_problem = _drain(body["metadata"])
    addresses = body.get("status", {}).get("addresses") or []
    by_type = {address["type"]: address["address"] for address in reversed(addresses)}  # the first of a type wins
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels") or {},
        internal=by_type.get("InternalIP", ""),
        external=by_type.get("ExternalIP", ""),
        leaving="cordoned" if spec.get("unschedulable") else f"tainted {taints[0]}" if taints else "",
        drain=drain,
        drain_problem=drain_problem,
    )


def observe_relay(body: Object) -> RelayResource:
    """Read a VoiceRelay. Raises UnreadableError."""
    return RelayResource(**_resource("VoiceRelay", VoiceRelaySpec, body))


def observe_pool(body: Object) -> PoolResource:
    """Read a Transceiver. Raises UnreadableError."""
    drain, drain_problem = _drain(body["metadata"])
    return PoolResource(**_resource("Transceiver", TransceiverSpec, body), drain=drain, drain_problem=drain_problem)


def _resource(kind: str, model: type[VoiceRelaySpec | TransceiverSpec], body: Object) -> dict[str, Any]:
    """Return the fields that our two resources share. Raises UnreadableError."""
    metadata = body["metadata"]
    try:
        spec = model.model_validate(body["spec"])
    except (KeyError, ValidationError) as error:
        raise UnreadableError(f"{kind} {metadata['name']}: {error}") from None
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 0),
        "spec": spec,
        "status": body.get("status") or {},
        "deleting": "deletionTimestamp" in metadata,
        "paused": _paused(metadata),
    }


def observe_unread(body: Object, problem: str) -> Unread:
    """Read of a resource that is not understood what can be read."""
    return Unread(body["metadata"].get("generation", 0), problem, body.get("status") or {})


def observe_slice(body: Object) -> TopologySlice:
    """Read a TopologySlice. Raises UnreadableError."""
    try:
        return TopologySlice.load(json.dumps(body["spec"]))
    except (KeyError, TopologyError) as error:
        raise UnreadableError(f"TopologySlice {body['metadata']['name']}: {error}") from None


def observe_horizontal_autoscaler(body: Object) -> str | None:
    """Return the name of the Transceiver that a HorizontalPodAutoscaler targets; None: it targets something else."""
    target = body.get("spec", {}).get("scaleTargetRef") or {}
    ours = target.get("kind") == "Transceiver" and str(target.get("apiVersion", "")).startswith(f"{names.GROUP}/")
    return str(target.get("name", "")) if ours else None


def observe_applied(kind: str, body: Object) -> Applied:
    """Read what one of our objects was made from."""
    metadata = body["metadata"]
    return Applied(kind, metadata["name"], (metadata.get("annotations") or {}).get(ANNOTATION_DIGEST, ""))


def _drain(metadata: Object) -> tuple[DrainRequest | None, str]:
    """Return what the drain annotation asks for, and what is wrong with it."""
    try:
        return parse_drain((metadata.get("annotations") or {}).get(names.ANNOTATION_DRAIN, "")), ""
    except DrainRequestError as error:
        return None, str(error)


def _paused(metadata: Object) -> bool:
    return (metadata.get("annotations") or {}).get(ANNOTATION_PAUSED) == "true"


def _unix(stamp: str | None) -> float:
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
