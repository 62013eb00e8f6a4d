"""The cluster's DNS: CoreDNS's manifests, and one query to see that it answers. Manifests are pure."""

import json
import socket
import struct

from e2e.cluster.nodes import DNS_ADDRESS

IMAGE = "voicefleet.local/coredns:1"
NAMESPACE = "kube-system"
NAME = "coredns"
# No cache: answers come from memory anyway, and tests see a new Service at once. Nothing is forwarded: the cluster has
# no way out, and a name outside it is better refused at once than waited for.
COREFILE = """cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""


def manifests() -> str:
    """One JSON List for `kubectl apply`."""
    named = {"name": NAME, "namespace": NAMESPACE}
    labels = {"k8s-app": "kube-dns"}
    read = {"verbs": ["list", "watch"]}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], **read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], **read},
    ]
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": NAME,
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
    }
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    subject = {"kind": "ServiceAccount", **named}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**named, "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": labels},
            "spec": {"clusterIP": DNS_ADDRESS, "selector": labels, "ports": ports},
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def build_query(name: str, query_id: int) -> bytes:
    """RFC 1035 4.1: an A query with recursion desired."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack("!6H", query_id, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def parse_address(answer: bytes, query: bytes) -> str | None:
    """The address in an answer to `query` whose first record is an A record, else None."""
    if len(answer) <= len(query) or answer[:2] != query[:2]:
        return None
    flags, _, answers = struct.unpack_from("!3H", answer, 2)
    if flags & 0x000F or answers == 0:
        return None
    at = len(query)  # the question is sent back as it came
    while at < len(answer) and 0 < answer[at] < 0xC0:
        at += 1 + answer[at]
    at += 2 if answer[at : at + 1] >= b"\xc0" else 1  # a pointer, or the root label
    if len(answer) < at + 14:
        return None
    kind, _, _, length = struct.unpack_from("!2HIH", answer, at)
    return ".".join(map(str, answer[at + 10 : at + 14])) if (kind, length) == (1, 4) else None


def resolve(name: str, timeout_s: float = 1.0) -> str | None:
    """Ask the cluster's DNS at its service address, as a pod does."""
    query = build_query(name, 0x7646)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout_s)
        try:
            udp.connect((DNS_ADDRESS, 53))
            udp.send(query)
            return parse_address(udp.recv(512), query)
        except OSError:
            return None
