"""What the eviction API may do to transceivers: nothing, until the operator itself has emptied and deleted the pod.

One budget a pool allows no disruption. A node is emptied by its cordon (or an annotation, or a node autoscaler's taint): the
operator sees it, replaces, fences, waits and deletes the pod; the evictions of `kubectl drain`, refused meanwhile, then
find it gone. So no label says that a pod may be evicted, and nothing can race with one; no call causes a write.

Pods that aren't ready hold no calls that anybody could hear: they may be evicted at once.
"""

from voicefleet_contract import names
from voicefleet_operator.desired import objects
from voicefleet_operator.desired.state import Component, Fleet, Manifest, PoolResource


def disruption_budget(fleet: Fleet, pool: PoolResource) -> Manifest:
    """Return the pool's only PodDisruptionBudget: a pod under two of them cannot be evicted at all."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": f"transceiver-{pool.name}",
            "namespace": fleet.namespace,
            "labels": objects.labels(Component.TRANSCEIVER, pool.name, pool=pool.name),
            "annotations": {objects.ANNOTATION_DIGEST: objects.digest("none away", pool.uid)},
            "ownerReferences": [objects.owner_reference("Transceiver", pool.name, pool.uid)],
        },
        "spec": {
            "maxUnavailable": 0,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {
                "matchLabels": {
                    names.LABEL_COMPONENT: Component.TRANSCEIVER.value,
                    names.LABEL_POOL: pool.name,
                }
            },
        },
    }
