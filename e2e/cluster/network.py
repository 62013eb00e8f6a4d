"""The nodes' network as lists of `ip` commands (pure), and the few calls that run them.

One bridge in a namespace of its own, a veth from it to the host (10.77.0.1), one to each node and to each client::

    host ── vfbr0 ┐
    node-a ─ eth0 ┼─ [vf-switch: br0]
    vf-client eth0┘

Everybody on it has direct routes to every node's pods, and the service addresses through the first node, so tests reach
node, pod and cluster addresses from the host and from clients alike.
"""

import ipaddress
import json
from pathlib import Path

from e2e.cluster.nodes import (
    CLIENT_PREFIX,
    HOST_ADDRESS,
    HOST_INTERFACE,
    NETWORK,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    SWITCH_NETNS,
    Client,
    Node,
)
from e2e.cluster.steps import ClusterError, run, succeeds

Commands = list[list[str]]


def _ip(words: str, netns: str | None = None) -> list[str]:
    return ["ip", *(["-n", netns] if netns else []), *words.split()]


def _pod_routes(netns: str | None, but: Node | None = None) -> Commands:
    return [_ip(f"route replace {n.pod_network} via {n.address}", netns) for n in NODES if n is not but]


def _attach(netns: str, address: str) -> Commands:
    port = f"p-{netns}"
    return [
        _ip(f"netns add {netns}"),
        _ip(f"link add {port} netns {SWITCH_NETNS} type veth peer name eth0 netns {netns}"),
        _ip(f"link set {port} master br0 up", SWITCH_NETNS),
        _ip("link set lo up", netns),
        _ip(f"addr add {address}/24 dev eth0", netns),
        _ip("link set eth0 up", netns),
        _ip(f"route add default via {HOST_ADDRESS}", netns),
    ]


def switch_commands() -> Commands:
    return [
        _ip(f"netns add {SWITCH_NETNS}"),
        _ip("link set lo up", SWITCH_NETNS),
        _ip("link add br0 type bridge", SWITCH_NETNS),
        _ip("link set br0 up", SWITCH_NETNS),
        _ip(f"link add {HOST_INTERFACE} type veth peer name p-host netns {SWITCH_NETNS}"),
        _ip("link set p-host master br0 up", SWITCH_NETNS),
        _ip(f"addr add {HOST_ADDRESS}/24 dev {HOST_INTERFACE}"),
        _ip(f"link set {HOST_INTERFACE} up"),
        *_pod_routes(None),
        _ip(f"route replace {SERVICE_NETWORK} via {NODES[0].address}"),
    ]


def node_commands(node: Node) -> Commands:
    return [
        *_attach(node.name, node.address),
        ["ip", "netns", "exec", node.name, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        *_pod_routes(node.name, but=node),
    ]


def client_commands(client: Client) -> Commands:
    return [
        *_attach(client.name, client.address),
        *_pod_routes(client.name),
        _ip(f"route replace {SERVICE_NETWORK} via {NODES[0].address}", client.name),
    ]


def ours(netns: str) -> bool:
    return netns == SWITCH_NETNS or netns.startswith(CLIENT_PREFIX) or netns in {node.name for node in NODES}


def overlapping_routes(routes: list[dict[str, str]]) -> list[str]:
    """Routes of this machine (as `ip -json route` lists them) that our networks would take over."""
    wanted = [ipaddress.ip_network(net) for net in (NETWORK, POD_NETWORK, SERVICE_NETWORK)]
    found = []
    for route in routes:
        if route["dst"] != "default" and route.get("dev") != HOST_INTERFACE:
            network = ipaddress.ip_network(route["dst"], strict=False)
            if any(network.overlaps(net) for net in wanted):
                found.append(f"{route['dst']} dev {route.get('dev', '?')}")
    return found


def existing_namespaces() -> list[str]:
    return [entry["name"] for entry in json.loads(run(["ip", "-json", "netns", "list"]) or "[]")]


def make_network() -> None:
    taken = overlapping_routes(json.loads(run(["ip", "-json", "-4", "route"]) or "[]"))
    if taken:
        raise ClusterError(
            f"this machine already routes addresses that the cluster uses ({NETWORK}, {POD_NETWORK}, {SERVICE_NETWORK}): {', '.join(taken)}"
        )
    for command in switch_commands():
        run(command)
    for node in NODES:
        for command in node_commands(node):
            run(command)


def add_client(client: Client) -> None:
    """Make the client's namespace unless it is there."""
    if client.name not in existing_namespaces():
        for command in client_commands(client):
            run(command)


def remove_client(client: Client) -> None:
    if client.name in existing_namespaces():
        run(_ip(f"netns del {client.name}"))


def remove_network() -> list[str]:
    """Remove all that is ours, whoever made it; returns the names of what was there."""
    removed = []
    if succeeds(_ip(f"link show {HOST_INTERFACE}")):
        # Its routes go with it.
        run(_ip(f"link del {HOST_INTERFACE}"))
        removed.append(HOST_INTERFACE)
    for name in filter(ours, existing_namespaces()):
        run(_ip(f"netns del {name}"))
        removed.append(name)
    _leave_netns_directory()
    return removed


def _leave_netns_directory() -> None:
    """`ip netns add` mounts its directory upon itself; the last one out undoes that."""
    directory = Path("/run/netns")
    if directory.is_dir() and not any(directory.iterdir()) and succeeds(["mountpoint", "-q", directory]):
        # Fails harmlessly when somebody has just added a namespace: theirs is mounted below it.
        succeeds(["umount", directory])
