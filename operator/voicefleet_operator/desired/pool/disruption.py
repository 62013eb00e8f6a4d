"""What the eviction API may do to transceivers: take those that have long been idle (idle), and no other.

One budget a pool allows no disruption of the rest: the operator itself empties and deletes them. A node is emptied by its
cordon (or an annotation, or a node autoscaler's taint): the operator sees it, replaces, fences, waits and deletes the pod;
the evictions of `kubectl drain`, refused meanwhile, then find it gone. No busy pod waits for a label, no call causes a write.

Pods that aren't ready hold no calls that anybody could hear: they may be evicted at once.
"""

from voicefleet_contract import names
from voicefleet_operator.desired import objects
from voicefleet_operator.desired.state import Component, Fleet, Manifest, PoolResource


def budget_name(pool: str) -> str:
    """Return the name of a pool's PodDisruptionBudget."""
    return f"transceiver-{pool}"


def disruption_budget(fleet: Fleet, pool: PoolResource) -> Manifest:
    """Return the pool's only PodDisruptionBudget: a pod under two of them cannot be evicted at all."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": budget_name(pool.name),
            "namespace": fleet.namespace,
            "labels": objects.labels(Component.TRANSCEIVER, pool.name, pool=pool.name),
            "annotations": {objects.ANNOTATION_DIGEST: objects.digest("none away but idle ones", pool.uid)},
            "ownerReferences": [objects.owner_reference("Transceiver", pool.name, pool.uid)],
        },
        "spec": {
            "maxUnavailable": 0,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {
                "matchLabels": {
                    names.LABEL_COMPONENT: Component.TRANSCEIVER.value,
                    names.LABEL_POOL: pool.name,
                },
                "matchExpressions": [{"key": names.LABEL_IDLE, "operator": "DoesNotExist"}],
            },
        },
    }
