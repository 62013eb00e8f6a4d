"""Deleting the resources frees every pod and port. The last story: the fleet is made again by the next run."""

import socket

from e2e.cluster.nodes import ADDRESS
from e2e.fleet import Fleet
from e2e.kube import eventually


def test_deleting_the_resources_leaves_no_pod_and_no_port(fleet: Fleet) -> None:
    ports = {
        (pod["status"]["hostIP"], port["hostPort"])
        for pod in [*fleet.transceivers(), *fleet.relays()]
        for port in pod["spec"]["containers"][0]["ports"]
        if port["protocol"] == "TCP"
    }
    assert {host for host, _ in ports} <= set(ADDRESS.values())
    assert ports
    assert all(accepts(*port) for port in ports)
    fleet.kube.run("delete", "voicerelays,transceivers", "--all", "--wait=false")
    selector = "app.kubernetes.io/component in (relay,transceiver)"
    eventually("every relay and transceiver pod gone", lambda: not fleet.kube.get("pods", selector=selector), 150.0)
    assert not any(accepts(*port) for port in ports)
    eventually("no relay DaemonSet", lambda: not fleet.kube.get("daemonsets"), 30.0)


def accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
