"""Workers of a relay in its pod, its topology entry and the port ledger; memory that fits its flow table."""

import pytest

from tests.support.fleet_world import World, empty_fleet, pool, relay
from tests.unit.test_operator_fleet import by_kind, containers, fleet_with_relays, relay_pod, relays_of, settled

LOCATION = {"region": "eu", "latitude": 1.0, "longitude": 1.0}


def spec_of(**fields):
    return relay(location=LOCATION, **fields).spec


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 1),
        ({"datapath": "Userspace"}, 1),
        ({"datapath": "Userspace", "resources": {"requests": {"cpu": "2500m"}}}, 3),
        ({"datapath": "Userspace", "resources": {"requests": {"cpu": 4}}}, 4),
        ({"datapath": "Userspace", "resources": {"requests": {"cpu": "100m"}}}, 1),
        ({"datapath": "Userspace", "resources": {"requests": {"cpu": "100"}}}, 32),
        ({"datapath": "Userspace", "workers": 2, "resources": {"requests": {"cpu": 4}}}, 2),
        ({"datapath": "Auto", "resources": {"requests": {"cpu": 4}}}, 1),  # the kernel may forward
        (
            {"datapath": "Userspace", "innerPort": 3475, "resources": {"requests": {"cpu": 8}}},
            3,
        ),  # up to the public port
        ({"datapath": "Userspace", "innerPort": 65534, "resources": {"requests": {"cpu": 8}}}, 2),
    ],
)
def test_as_many_workers_as_said_or_as_cpus_requested(fields, count):
    spec = spec_of(**fields)
    assert spec.worker_count == count
    assert len(spec.inner_ports) == count
    assert spec.port not in spec.inner_ports


def test_every_worker_has_a_declared_port_and_stands_in_the_topology():
    fields = {"location": LOCATION, "datapath": "Userspace", "workers": 3}
    fleet = fleet_with_relays(relay_pod("node-0"), spec=fields)
    container = containers(by_kind(fleet)["DaemonSet"]["spec"]["template"])[0]
    ports = {(port["containerPort"], port["hostPort"], port["protocol"]) for port in container["ports"]}
    assert {(port, port, "UDP") for port in (3478, 3479, 3480, 3481)} | {(3479, 3479, "TCP")} == ports
    assert len({port["name"] for port in container["ports"]}) == 5
    assert {"name": "VOICEFLEET_WORKERS", "value": "3"} in container["env"]
    entry = relays_of(settled(fleet))["node-0"]
    assert [endpoint.port for endpoint in entry.inner] == [3479, 3480, 3481]


def test_ports_of_workers_are_never_given_to_transceivers():
    relays = {"fra": relay(location=LOCATION, datapath="Userspace", workers=3)}
    made = World(empty_fleet(pools={"agents": pool(replicas=2, ports={"min": 3478, "max": 3483})}, relays=relays))
    made.settle()
    assert {pod.port for pod in made.serving()} == {3482, 3483}


@pytest.mark.parametrize(
    ("fields", "memory"),
    [
        ({}, "467Mi"),
        ({"flows": {"max": 1_000_000}}, "2079Mi"),
        ({"flows": {"max": 1_000_000}, "datapath": "Userspace", "workers": 1}, "1163Mi"),
        ({"flows": {"max": 1000}, "datapath": "Userspace", "workers": 4}, "258Mi"),
    ],
)
def test_a_pod_asks_for_the_memory_that_its_flows_may_take(fields, memory):
    fleet = fleet_with_relays(relay_pod("node-0"), spec={"location": LOCATION, **fields})
    container = containers(by_kind(fleet)["DaemonSet"]["spec"]["template"])[0]
    assert container["resources"]["requests"]["memory"] == memory
