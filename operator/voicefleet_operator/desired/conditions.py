"""Conditions as Kubernetes stores them, and what both of our resources say with the same words.

Each has the generation of the spec that it speaks of. A condition's lastTransitionTime moves with its status only, so a
status that says the same is equal to the one before, and nothing is written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from voicefleet_operator.desired.state import REFUSAL_RETRY_S, Fleet, Manifest, Pod

MAX_MESSAGE = 1000
# All that we write, on either resource.
CONDITIONS = (
    *("Ready", "Reconciling", "Stalled", "PortsAllocated", "RingConverged", "Draining"),
    *("MembersHealthy", "Autoscaling", "FastPath"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition before it knows since when it holds. ``status`` None is Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


def stamp(at: float | None) -> str | None:
    """Return Unix seconds as Kubernetes writes times."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge_conditions(
    before: Iterable[Mapping[str, Any]], conditions: Iterable[Condition], generation: int, now: float
) -> list[Manifest]:
    """Return conditions as Kubernetes stores them; a transition time stays while the status does."""
    known = {str(condition.get("type")): condition for condition in before}
    at = stamp(now)
    merged: list[Manifest] = []
    for condition in conditions:
        status = {True: "True", False: "False", None: "Unknown"}[condition.status]
        old = known.get(condition.type, {})
        merged.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message[:MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": old.get("lastTransitionTime", at) if old.get("status") == status else at,
            }
        )
    return merged


def stalled(fleet: Fleet, kind: str, name: str, stuck: str) -> Condition:
    """Say whether time alone will not cure it."""
    refusal = fleet.refused.get((kind, name))
    if refusal is not None:
        text = f"the API server refuses what this needs; tried again every {REFUSAL_RETRY_S:.0f} s: {refusal.message}"
        return Condition("Stalled", True, "Refused", text)
    return Condition("Stalled", bool(stuck), "PodTrouble" if stuck else "NotStalled", stuck)


def pod_trouble(pods: Iterable[Pod]) -> str:
    """Name the first pod that does not start, and why; "" when all do."""
    found = [pod for pod in pods if pod.trouble]
    if not found:
        return ""
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{first.name}: {first.trouble}: {first.trouble_message}"[: MAX_MESSAGE - 80] + more


def conditions_before(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the conditions of a status as it was observed."""
    conditions = status.get("conditions")
    return conditions if isinstance(conditions, list) else []


def listed(items: Iterable[object], most: int = 5) -> str:
    """Return a few of many, and how many more there are."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
