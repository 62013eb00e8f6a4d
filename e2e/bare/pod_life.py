"""What a kubelet would say next of a pod, given what is to become of its containers. Pure: of one object, at one moment.

It is asked again after each change, and says nothing more when the pod is as it should be.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Fate:
    """What becomes of a pod's containers. As it stands here: they run, are Ready, and end as soon as they are told to."""

    ready: bool = True
    waiting: str = ""  # the reason why they do not start, in a kubelet's words
    message: str = ""
    exit_code: int | None = None  # they end with it, each time they are started
    stays: bool = False  # told to end, they take their whole grace


RUNS = Fate()


@dataclass(frozen=True)
class Say:
    """Write this status (a strategic merge patch)."""

    status: Object


@dataclass(frozen=True)
class Later:
    """Ask again at this time (Unix, seconds)."""

    at: float


class Gone:
    """Its containers have ended: take it away."""


def next_word(pod: Object, fate: Fate, address: str, now: float) -> Say | Later | Gone | None:
    """``address`` is the node's: every pod has it, as on the host network. None: all is said."""
    ends_at = pod["metadata"].get("deletionTimestamp")
    if ends_at is not None:
        at = datetime.fromisoformat(ends_at).timestamp()
        return Later(at) if fate.stays and now < at else Gone()
    status = pod.get("status", {})
    held = {one["name"]: one for one in status.get("containerStatuses", ())}
    containers = [_container(one, held.get(one["name"], {}), fate, now) for one in pod["spec"]["containers"]]
    ready = all(one["ready"] for one in containers)
    seen = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if all(one is held.get(one["name"]) for one in containers) and seen.get("Ready") == str(ready):
        return None
    conditions = [
        {"type": kind, "status": str(value), "lastTransitionTime": _stamp(now)}
        for kind, value in (("Initialized", True), ("ContainersReady", ready), ("Ready", ready))
        if seen.get(kind) != str(value)
    ]
    ips = [{"ip": address}]
    return Say(
        {
            "phase": "Pending" if fate.waiting else "Running",
            "startTime": status.get("startTime", _stamp(now)),
            "hostIP": address,
            "hostIPs": ips,
            "podIP": address,
            "podIPs": ips,
            "conditions": conditions,
            "containerStatuses": containers,
        }
    )


def _container(spec: Object, held: Object, fate: Fate, now: float) -> Object:
    """The status of one container; the one that is held when nothing changes."""
    state, restarts = held.get("state", {}), held.get("restartCount", 0)
    ready = False
    if fate.waiting:
        if "running" in state:
            restarts += 1
        wanted: Object = {"waiting": {"reason": fate.waiting, "message": fate.message}}
    elif fate.exit_code is not None:
        ended = {"exitCode": fate.exit_code, "reason": "Error", "startedAt": _stamp(now), "finishedAt": _stamp(now)}
        last = state.get("terminated") or held.get("lastState", {}).get("terminated") or {}
        if last.get("exitCode") != fate.exit_code or "running" in state:
            wanted = {"terminated": ended}
        else:
            wanted = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
            restarts += "terminated" in state
    else:
        ready = fate.ready
        wanted = {"running": {"startedAt": _stamp(now)}}
        restarts += "running" not in state and bool(restarts or state.get("terminated"))
    if _kind(wanted) == _kind(state) and held.get("ready") == ready:
        return held
    if _kind(wanted) == _kind(state):
        wanted = state
    last_state = {"terminated": state["terminated"]} if "terminated" in state else held.get("lastState", {})
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": ready,
        "started": "running" in wanted,
        "restartCount": restarts,
        "state": wanted,
        "lastState": last_state,
    }


def _kind(state: Object) -> tuple[object, ...]:
    """What tells one state from another: its times do not."""
    [(kind, detail)] = state.items() or [("", {})]
    return kind, detail.get("reason"), detail.get("exitCode")


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")
