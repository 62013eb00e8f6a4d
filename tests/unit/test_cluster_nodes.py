"""Configuration files and command lines of the nodes and of their network."""

import ipaddress
import json
from pathlib import Path

import pytest

from e2e.cluster import cgroups, control_plane, network, node, pki
from e2e.cluster.nodes import ADDRESS, DNS_ADDRESS, HOST_ADDRESS, NETWORK, NODES, POD_NETWORK, SERVICE_NETWORK, Client

STATE = Path("/state")
TREE = Path("/tree")


def test_nodes_differ_in_address_pod_network_and_zone():
    for attribute in ("address", "pod_network", "zone", "region"):
        assert len({getattr(n, attribute) for n in NODES}) == 3
    assert ADDRESS == {"node-a": "10.77.0.11", "node-b": "10.77.0.12", "node-c": "10.77.0.13"}


def test_every_address_is_in_its_network():
    assert all(ipaddress.ip_address(n.address) in ipaddress.ip_network(NETWORK) for n in NODES)
    assert all(ipaddress.ip_network(n.pod_network).subnet_of(ipaddress.ip_network(POD_NETWORK)) for n in NODES)
    assert ipaddress.ip_address(DNS_ADDRESS) in ipaddress.ip_network(SERVICE_NETWORK)


@pytest.mark.parametrize("name", ["client", "vf-client-too-long"])
def test_a_client_name_that_down_could_not_find_is_refused(name: str):
    with pytest.raises(ValueError, match="vf-client"):
        Client(name, "10.77.0.201")


def test_every_namespace_that_is_made_is_one_that_is_removed():
    commands = [*network.switch_commands(), *network.client_commands(Client())]
    for n in NODES:
        commands += network.node_commands(n)
    made = {command[-1] for command in commands if command[:3] == ["ip", "netns", "add"]}
    assert len(made) == 5 and all(network.ours(name) for name in made)
    assert not network.ours("somebody-else")


def test_interface_names_fit_the_kernel():
    commands = [*network.switch_commands(), *network.client_commands(Client("vf-client-123", "10.77.0.201"))]
    names = [command[command.index("add") + 1] for command in commands if "link" in command and "add" in command]
    assert names and all(len(name) <= 15 for name in names)


def test_a_node_routes_to_the_pods_of_the_others_and_not_to_its_own():
    routed = {
        command[command.index("replace") + 1] for command in network.node_commands(NODES[1]) if "replace" in command
    }
    assert routed == {NODES[0].pod_network, NODES[2].pod_network}


def test_a_route_of_the_machine_that_overlaps_is_named():
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "10.96.0.0/12", "dev": "wg0"},
        {"dst": "192.168.0.0/24", "dev": "eth0"},
    ]
    assert network.overlapping_routes(routes) == ["10.96.0.0/12 dev wg0"]


def test_our_own_routes_do_not_overlap_with_themselves():
    assert network.overlapping_routes([{"dst": "10.77.0.0/24", "dev": "vfbr0"}]) == []


def test_configuration_files_that_are_json_parse():
    for path, text in node.files(STATE, NODES[0], may_lower_oom_score=True).items():
        if path.suffix in {".json", ".conflist"}:
            assert json.loads(text)


def test_port_mappings_reach_the_portmap_plugin():
    plugins = json.loads(node.cni_config(NODES[0]))["plugins"]
    assert plugins[-1]["type"] == "portmap" and plugins[-1]["capabilities"] == {"portMappings": True}


@pytest.mark.parametrize(("may", "restricted"), [(True, "false"), (False, "true")])
def test_oom_scores_are_restricted_exactly_where_root_may_not_lower_them(may: bool, restricted: str):
    assert f"restrict_oom_score_adj = {restricted}" in node.containerd_config(Path("/socket"), may_lower_oom_score=may)


def test_a_node_hides_the_machines_directories_before_its_programs_start():
    script = node.enter_script(STATE, TREE, NODES[0])
    assert script.index("/var/lib\n") < script.index("exec sleep")
    assert "mount -t tmpfs -o mode=755 tmpfs /run" in script


def test_the_api_server_takes_the_front_proxy_by_name_only():
    argv = control_plane.kube_apiserver(TREE, STATE).argv
    assert "--requestheader-allowed-names=front-proxy" in argv
    assert f"--bind-address={HOST_ADDRESS}" in argv
    assert "--authorization-mode=Node,RBAC" in argv


def test_every_kubeconfig_in_use_is_one_that_is_written():
    used = " ".join(
        [
            *control_plane.kube_controller_manager(TREE, STATE).argv,
            *control_plane.kube_scheduler(TREE, STATE).argv,
            *(word for n in NODES for word in node.kubelet(STATE, n, 1).argv),
            *(node.kube_proxy_config(STATE, n) for n in NODES),
        ]
    )
    for name in (*pki.KUBECONFIGS,):
        assert name == "admin" or f"/pki/{name}.conf" in used


def test_a_kubeconfig_holds_its_certificates_itself():
    config = json.loads(pki.kubeconfig(b"ca", b"certificate", b"key"))
    assert config["clusters"][0]["cluster"]["server"] == "https://10.77.0.1:6443"
    assert config["users"][0]["user"] == {"client-certificate-data": "Y2VydGlmaWNhdGU=", "client-key-data": "a2V5"}


V1 = """tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""


def test_on_cgroup_v1_daemons_are_counted_by_the_pids_controller():
    assert [str(path) for path in cgroups.hierarchies(V1)] == [
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/cpu",
        "/sys/fs/cgroup/unified",
    ]


def test_on_cgroup_v2_there_is_one_hierarchy():
    assert cgroups.hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == [Path("/sys/fs/cgroup")]
