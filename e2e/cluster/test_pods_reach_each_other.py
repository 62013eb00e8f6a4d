"""The local cluster does for pods what the stories build upon: names, Services, host ports, clients with an address."""

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from e2e.cluster import network, startup
from e2e.cluster.__main__ import current_context
from e2e.cluster.build import build
from e2e.cluster.nodes import ADDRESS, Client
from e2e.cluster.places import KUBECONFIG
from e2e.kube import Kube

pytestmark = pytest.mark.e2e
NAMESPACE = "voicefleet-cluster-test"
PORT, HOST_PORT = 9000, 31999
IMAGE = "voicefleet.local/dataplane:dev"
CLIENT = Client("vf-client-t", "10.77.0.209")

ECHO = f"""
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", {PORT}))
tcp = socket.create_server(("", {PORT}))
def serve_udp():
    while True:
        data, peer = udp.recvfrom(2048)
        udp.sendto(peer[0].encode(), peer)
threading.Thread(target=serve_udp, daemon=True).start()
while True:
    connection, peer = tcp.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
# Asks an address for ours over UDP and TCP; prints both.
ASK = """
import socket, sys
target = (sys.argv[1], int(sys.argv[2]))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
udp.connect(target)
udp.send(b"who am I?")
print(udp.recv(100).decode(), socket.create_connection(target, 5).recv(100).decode())
"""


def pod(name: str, node: str, command: list[str], **spec: object) -> dict[str, object]:
    ports = [{"containerPort": PORT, "hostPort": HOST_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    container = {"name": "c", "image": IMAGE, "command": command, "ports": ports if name == "echo" else []}
    if name == "echo":
        container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    metadata = {"name": name, "labels": {"app": name}}
    termination = {"terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [container], **termination, **spec},
    }


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    if current_context():
        pytest.fail("these tests are of the local cluster's own making; VOICEFLEET_USE_CURRENT_CONTEXT=1 names another")
    kube = Kube((str(build() / "bin" / "kubectl"), "--kubeconfig", str(KUBECONFIG)), NAMESPACE)
    kube.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", namespaced=False)
    kube.run("create", "namespace", NAMESPACE, namespaced=False)
    ports = [{"name": protocol.lower(), "port": PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo"},
        "spec": {"selector": {"app": "echo"}, "ports": ports},
    }
    idle = ["sleep", "infinity"]
    items = [
        service,
        pod("echo", "node-b", ["python3", "-c", ECHO]),
        pod("asker", "node-a", idle),
        pod("host-network", "node-c", idle, hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
    ]
    kube.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    kube.run("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    yield kube
    kube.run("delete", "namespace", NAMESPACE, "--wait=false", namespaced=False)


def asked_from(kube: Kube, name: str, host: str, port: int) -> list[str]:
    return kube.run("exec", name, "--", "python3", "-c", ASK, host, str(port)).split()


def asked_here(prefix: tuple[str, ...], host: str, port: int) -> list[str]:
    return subprocess.run(
        [*prefix, "python3", "-c", ASK, host, str(port)], capture_output=True, text=True, check=True, timeout=30
    ).stdout.split()


def test_a_pod_reaches_a_pod_on_another_node_by_its_services_name(kube: Kube):
    own = kube.get("pod", "asker")["status"]["podIP"]
    assert asked_from(kube, "asker", "echo", PORT) == [own, own]


def test_a_host_network_pod_resolves_names_and_has_its_nodes_address(kube: Kube):
    first, second = asked_from(kube, "host-network", "echo.voicefleet-cluster-test.svc.cluster.local", PORT)
    assert first == second == ADDRESS["node-c"]


def test_a_name_outside_the_cluster_is_refused_at_once(kube: Kube):
    lookup = "import socket\ntry: socket.gethostbyname('outside.example')\nexcept socket.gaierror as error: print(error.errno)"
    assert int(kube.run("exec", "asker", "--", "python3", "-c", lookup)) == socket.EAI_NONAME


def test_a_host_port_reaches_its_pod_over_udp_and_tcp_and_shows_the_callers_address(kube: Kube):
    network.add_client(CLIENT)
    try:
        seen = asked_here(("ip", "netns", "exec", CLIENT.name), ADDRESS["node-b"], HOST_PORT)
    finally:
        network.remove_client(CLIENT)
    assert seen == [CLIENT.address, CLIENT.address]


def test_this_machine_reaches_nodes_pods_and_services(kube: Kube):
    for host in (kube.get("pod", "echo")["status"]["podIP"], kube.get("service", "echo")["spec"]["clusterIP"]):
        assert len(asked_here((), host, PORT)) == 2


def test_the_scheduler_refuses_a_host_port_that_is_taken(kube: Kube):
    """What keeps two holders of a port number apart is Kubernetes itself, not our care."""
    wants = pod("second", "node-b", ["sleep", "infinity"])
    spec = wants["spec"]
    del spec["nodeName"]
    spec["nodeSelector"] = {"kubernetes.io/hostname": "node-b"}
    spec["containers"][0]["ports"] = [{"containerPort": PORT, "hostPort": HOST_PORT, "protocol": "UDP"}]
    kube.apply(json.dumps(wants))
    kube.run("wait", "--for=condition=PodScheduled=False", "pod/second", "--timeout=30s")
    conditions = kube.get("pod", "second")["status"]["conditions"]
    assert any("free ports" in condition.get("message", "") for condition in conditions)


def test_a_command_in_a_node_sees_the_nodes_network_and_its_own_files(kube: Kube):
    prefix = startup.node_prefix("node-b")
    shown = subprocess.run(
        [*prefix, "sh", "-c", "hostname; ip -br a show eth0; ls /var/lib"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("node-b\n") and ADDRESS["node-b"] in shown and "kubelet" in shown
