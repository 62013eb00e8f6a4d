"""VoiceRelay → a host-network DaemonSet: one relay on each chosen node, behind one public UDP port.

A relay that is replaced must free its host ports before the next one can bind them, so a rolling update takes one node's
relay away, then starts the new one (maxUnavailable 1, no surge); its flows come back from the flow cache, or with the
clients' next checks.

Owns: the DaemonSet, and which addresses a node's relay advertises. Does not own: whether a relay is in the topology.
"""

from voicefleet_contract import names
from voicefleet_contract.resources import AdvertiseFrom, Datapath, VoiceRelaySpec
from voicefleet_contract.settings import RelaySettings
from voicefleet_operator.desired import objects
from voicefleet_operator.desired.config import FleetConfig
from voicefleet_operator.desired.state import Component, Manifest, Node, RelayResource

_PROCESS_MIB = 64
# Measured (bench/flow_table.py): 1,037 at 200,000 flows, 951 at a million; a table that grows holds its old self for a moment.
FLOW_BYTES = 1_152
RULE_BYTES = (
    960  # beside a kernel path: 480 to 500 measured in the process, 378 in the kernel, which the pod is charged for
)
_END_GRACE_S = 10  # beyond the drain deadline: readiness leaves first (2 s), then the sockets

_BPFFS = "/sys/fs/bpf"
# To load the kernel path and attach it, and for nothing else. User 0 because the BPF file system is its, and because Kubernetes
# gives added capabilities to no other user; without any capability beside the two it may do little more than one
# (docs/adr/0011).
_KERNEL_SECURITY: Manifest = {
    **objects.CONTAINER_SECURITY,
    "runAsUser": 0,
    "runAsNonRoot": False,
    "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]},
}


def relay_digest(config: FleetConfig, relay: RelayResource) -> str:
    """Return the digest of what the DaemonSet is made from. Location and advertised addresses reach no pod.

    Defaults are left out: a field that a later operator knows, and nobody set, restarts no relay.
    """
    spec = relay.spec.model_dump(mode="json", exclude={"location", "advertise"}, exclude_defaults=True)
    return objects.digest(spec, config.cluster.id, config.dataplane.model_dump(), config.redis.model_dump())


def relay_daemonset(config: FleetConfig, namespace: str, relay: RelayResource) -> Manifest:
    """Return the DaemonSet."""
    spec = relay.spec
    registry, registry_secrets = objects.registry_settings(config)
    settings = RelaySettings(
        cluster_id=config.cluster.id,
        namespace=namespace,
        public_port=spec.port,
        inner_address="0.0.0.0",
        inner_port=spec.inner_port,
        max_flows=spec.flows.max,
        workers=spec.worker_count,
        flow_idle_timeout_s=spec.flows.idle_timeout,
        drain_deadline_s=spec.drain.deadline,
        relay_name=relay.name,
        datapath=spec.datapath.value,
        log_level=config.dataplane.log_level,  # type: ignore[arg-type]  # pydantic checks it
        **registry,
    )
    variables = settings.to_environment()
    variables.pop("VOICEFLEET_INNER_ADDRESS", None)
    identity = objects.labels(Component.RELAY, relay.name, relay=relay.name)
    # A relay reads the keys of hints and its own certificate: no call key, no key of another role.
    volumes, mounts = objects.secret_mounts(
        {"hint-keys": names.SECRET_HINT_KEYS, "tls": names.tls_secret("relay"), **registry_secrets}
    )
    security = objects.CONTAINER_SECURITY
    if spec.datapath is not Datapath.USERSPACE:
        security = _KERNEL_SECURITY
        volumes.append({"name": "bpffs", "hostPath": {"path": _BPFFS}})
        mounts.append({"name": "bpffs", "mountPath": _BPFFS})
    probe = {"port": spec.inner_port, "scheme": "HTTP"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": f"{relay.name}-relay",
            "namespace": namespace,
            "labels": identity,
            "annotations": {objects.ANNOTATION_DIGEST: relay_digest(config, relay)},
            "ownerReferences": [objects.owner_reference("VoiceRelay", relay.name, relay.uid)],
        },
        "spec": {
            "selector": {"matchLabels": {names.LABEL_COMPONENT: Component.RELAY.value, names.LABEL_RELAY: relay.name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": {"labels": identity},
                "spec": {
                    **objects.pod_basics(config, Component.RELAY),
                    "hostNetwork": True,
                    "dnsPolicy": "ClusterFirstWithHostNet",
                    # Used up only where the ingress is withdrawn; a relay that restarts leaves at once.
                    "terminationGracePeriodSeconds": int(spec.drain.deadline) + _END_GRACE_S,
                    "nodeSelector": dict(spec.placement.node_selector),
                    "tolerations": list(spec.placement.tolerations),
                    "volumes": volumes,
                    "containers": [
                        {
                            "name": "relay",
                            "image": config.dataplane.image,
                            "imagePullPolicy": config.dataplane.pull_policy,
                            "args": ["relay"],
                            "env": objects.environment(
                                variables,
                                {
                                    "VOICEFLEET_INNER_ADDRESS": "status.hostIP",
                                    "VOICEFLEET_NODE_NAME": "spec.nodeName",
                                    "VOICEFLEET_PROCESS_NAME": "metadata.name",
                                },
                            ),
                            "ports": [
                                {
                                    "name": "public",
                                    "containerPort": spec.port,
                                    "hostPort": spec.port,
                                    "protocol": "UDP",
                                },
                                *(
                                    {"name": name, "containerPort": port, "hostPort": port, "protocol": "UDP"}
                                    for name, port in _inner_ports(spec)
                                ),
                                {
                                    "name": "health",
                                    "containerPort": spec.inner_port,
                                    "hostPort": spec.inner_port,
                                    "protocol": "TCP",
                                },
                            ],
                            "readinessProbe": {"httpGet": {**probe, "path": "/readyz"}, "periodSeconds": 2},
                            "livenessProbe": {
                                "httpGet": {**probe, "path": "/healthz"},
                                "periodSeconds": 10,
                                "failureThreshold": 6,
                            },
                            "resources": objects.resource_requirements(spec.resources, "100m", relay_memory(spec)),
                            "securityContext": security,
                            "volumeMounts": mounts,
                        }
                    ],
                },
            },
        },
    }


def relay_memory(spec: VoiceRelaySpec) -> str:
    """Return the memory that a pod asks for: its processes, and a full flow table."""
    flow_bytes = FLOW_BYTES + (0 if spec.datapath is Datapath.USERSPACE else RULE_BYTES)
    return f"{_PROCESS_MIB * spec.worker_count + -(-spec.flows.max * flow_bytes // 2**20)}Mi"


def _inner_ports(spec: VoiceRelaySpec) -> list[tuple[str, int]]:
    first, *others = spec.inner_ports
    return [("inner", first), *((f"inner-{index}", port) for index, port in enumerate(others, 1))]


def advertised_addresses(relay: RelayResource, node: Node, all_nodes: list[Node]) -> list[str]:
    """Return the addresses that the relay on ``node`` tells clients.

    Of fixed addresses, one that a node has belongs to that node alone; one that no node has is shared by all (something
    in front of the nodes spreads it). Empty: the node has no such address, and its relay takes no new calls.
    """
    advertise = relay.spec.advertise
    if advertise.addresses:
        owned = {address for other in all_nodes for address in (other.internal, other.external) if address}
        mine = {node.internal, node.external}
        return [address for address in advertise.addresses if address in mine or address not in owned]
    match advertise.from_ or AdvertiseFrom.NODE_EXTERNAL_IP:
        case AdvertiseFrom.NODE_EXTERNAL_IP:
            return [node.external] if node.external else []
        case AdvertiseFrom.NODE_INTERNAL_IP:
            return [node.internal] if node.internal else []
        case AdvertiseFrom.LOAD_BALANCER:
            return []  # not built: the Ready condition says so


def chosen_nodes(relay: RelayResource, nodes: list[Node]) -> list[Node]:
    """Return the nodes that the selector matches."""
    wanted = relay.spec.placement.node_selector.items()
    return [node for node in nodes if all(node.labels.get(key) == value for key, value in wanted)]
