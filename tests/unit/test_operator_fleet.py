"""Relays, topology, gateway and conditions as plans make them."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import CONFIG, World, empty_fleet, nodes, pool, relay
from voicefleet_contract.settings import GatewaySettings, RelaySettings, TransceiverSettings
from voicefleet_contract.topology import RelayState, join
from voicefleet_operator.desired.config import Dataplane, FleetConfigError, Gateway, Redis, parse_config
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.relay.daemonset import advertised_addresses
from voicefleet_operator.desired.state import Component, Fleet, Node, Pod


def relay_pod(node: str, *, ready: bool = True, deleting: bool = False, name: str = "") -> Pod:
    ip = nodes(3)[node].internal
    return Pod(
        name or f"fra-relay-{node}", f"uid-{node}{name}", Component.RELAY, "fra", node=node, host_ip=ip,
        running=True, ready=ready, deleting=deleting,
    )  # fmt: skip


def fleet_with_relays(*pods: Pod, **fields) -> Fleet:
    return empty_fleet(relays={"fra": relay(**fields.pop("spec", {}))}, pods={pod.name: pod for pod in pods}, **fields)


def settled(fleet: Fleet) -> World:
    world = World(fleet)
    world.carry_out(plan(fleet, 1.0))
    return world


def by_kind(fleet: Fleet) -> dict[str, dict]:
    return {manifest["kind"]: manifest for manifest in plan(fleet, 1.0).apply}


def containers(manifest) -> list[dict]:
    spec = manifest["spec"]
    return (spec["template"]["spec"] if "template" in spec else spec)["containers"]


def settings_of(manifest, model):
    env = {e["name"]: e.get("value", "10.0.0.1") for e in containers(manifest)[0]["env"]}
    return model.from_environment(env)


FULL = CONFIG.model_copy(
    update={
        "gateway": Gateway(pool="agents"),
        "redis": Redis(url="redis://r:6379/0", password_secret="voicefleet-redis"),
    }
)


def everything() -> Fleet:
    return replace(empty_fleet(relays={"fra": relay()}, pools={"agents": pool(replicas=1)}), config=FULL)


def test_each_role_reads_back_the_settings_that_its_pod_is_given():
    todo = plan(everything(), 1.0)
    kinds = {manifest["kind"]: manifest for manifest in todo.apply}
    assert settings_of(kinds["DaemonSet"], RelaySettings).public_port == 3478
    assert settings_of(kinds["Deployment"], GatewaySettings).pool == "agents"
    made = settings_of(todo.create_pods[0], TransceiverSettings)
    assert (made.slot, made.generation, made.pool, made.cluster_id) == (0, 1, "agents", 7)
    assert made.redis_password_file == "/etc/voicefleet/redis/password"


def test_every_container_has_the_least_security_context_and_requests():
    todo = plan(everything(), 1.0)
    for manifest in (*todo.apply, *todo.create_pods):
        if manifest["kind"] in ("Service", "PodDisruptionBudget"):
            continue
        for container in containers(manifest):
            added = {"add": ["BPF", "NET_ADMIN"]} if manifest["kind"] == "DaemonSet" else {}
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], **added}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["resources"]["requests"]["cpu"]


def test_each_role_mounts_only_the_secrets_that_it_needs():
    todo = plan(everything(), 1.0)
    kinds = {
        manifest["kind"]: manifest["spec"]["template"]["spec"]
        for manifest in todo.apply
        if "template" in manifest["spec"]
    }
    kinds["Pod"] = todo.create_pods[0]["spec"]
    mounted = {
        kind: {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v} for kind, spec in kinds.items()
    }
    assert mounted["DaemonSet"] == {"voicefleet-hint-keys", "voicefleet-relay-tls", "voicefleet-redis"}
    assert "voicefleet-hint-keys" not in mounted["Deployment"]  # a gateway signs and checks no hint
    assert "voicefleet-call-keys" in mounted["Pod"]
    assert not any("voicefleet-inner-ca" in secrets for secrets in mounted.values())


def test_both_protocols_of_a_transceivers_port_are_declared_as_host_ports():
    ports = containers(plan(everything(), 1.0).create_pods[0])[0]["ports"]
    assert {(p["hostPort"], p["protocol"]) for p in ports} == {(20010, "UDP"), (20010, "TCP")}


def test_a_relay_frees_its_port_before_the_next_one_binds_it():
    strategy = by_kind(everything())["DaemonSet"]["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_moving_a_relays_coordinates_touches_no_relay():
    world = settled(everything())
    moved = relay(location={"region": "us", "latitude": 1.0, "longitude": 1.0})
    assert not plan(replace(world.fleet, relays={"fra": moved}), 2.0).apply


def test_another_dataplane_image_moves_relays_gateway_and_transceivers():
    world = World(everything())
    world.settle()
    config = FULL.model_copy(update={"dataplane": Dataplane(image="voicefleet:2")})
    todo = plan(replace(world.fleet, config=config), world.now)
    assert {manifest["kind"] for manifest in todo.apply} == {"DaemonSet", "Deployment"}
    assert todo.create_pods


def test_switching_the_gateway_off_prunes_it():
    world = settled(everything())
    off = FULL.model_copy(update={"gateway": Gateway(enabled=False)})
    todo = plan(replace(world.fleet, config=off), 2.0)
    assert {kind for kind, _ in todo.prune} == {"Deployment", "Service", "PodDisruptionBudget"}


def relays_of(world: World):
    return {entry.node: entry for entry in join(world.fleet.slices.values()).relays}


def test_a_ready_relay_is_active_with_its_nodes_addresses():
    entry = relays_of(settled(fleet_with_relays(relay_pod("node-0"))))["node-0"]
    assert entry.state is RelayState.ACTIVE
    assert entry.advertise[0].as_address() == ("203.0.113.1", 3478)
    assert entry.inner[0].as_address() == ("10.0.0.1", 3479)


def test_a_relay_between_two_pods_stays_in_the_topology_as_draining():
    world = settled(fleet_with_relays(relay_pod("node-0")))
    world.fleet = replace(world.fleet, pods={})
    world.carry_out(plan(world.fleet, 2.0))
    assert relays_of(world)["node-0"].state is RelayState.DRAINING


def test_a_relay_whose_node_is_no_longer_chosen_leaves_the_topology():
    world = settled(fleet_with_relays(relay_pod("node-0")))
    elsewhere = relay(placement={"nodeSelector": {"zone": "b"}})
    world.fleet = replace(world.fleet, pods={}, relays={"fra": elsewhere})
    world.carry_out(plan(world.fleet, 2.0))
    assert relays_of(world) == {}


def test_a_relay_without_an_address_to_advertise_takes_no_calls_and_the_condition_names_the_node():
    bare = {"node-0": Node("node-0", {}, "10.0.0.1", "")}
    fleet = replace(fleet_with_relays(relay_pod("node-0")), nodes=bare)
    world = settled(fleet)
    assert relays_of(world)["node-0"].state is RelayState.DRAINING
    ready = world.fleet.relays["fra"].status["conditions"][0]
    assert ready["reason"] == "NoAddress"
    assert "node-0" in ready["message"]


def test_the_load_balancer_source_says_that_it_is_not_built():
    world = settled(fleet_with_relays(relay_pod("node-0"), spec={"advertise": {"from": "LoadBalancer"}}))
    assert world.fleet.relays["fra"].status["conditions"][0]["reason"] == "LoadBalancerNotSupported"


def test_an_address_of_a_node_is_advertised_by_that_node_alone_and_another_by_all():
    all_nodes = list(nodes(2).values())
    resource = relay(advertise={"addresses": ["203.0.113.1", "198.51.100.9"]})
    assert advertised_addresses(resource, all_nodes[0], all_nodes) == ["203.0.113.1", "198.51.100.9"]
    assert advertised_addresses(resource, all_nodes[1], all_nodes) == ["198.51.100.9"]


def test_an_empty_fleet_still_publishes_a_topology():
    assert list(plan(empty_fleet(), 1.0).slices) == ["empty-0"]


def test_a_slice_that_somebody_changed_or_deleted_is_put_back():
    world = settled(fleet_with_relays(relay_pod("node-0")))
    name = next(iter(world.fleet.slices))
    assert name in plan(replace(world.fleet, slices={}), 2.0).slices


def test_a_conditions_transition_time_moves_with_its_status_only():
    world = World(empty_fleet(pools={"agents": pool(replicas=1)}))
    world.step()
    first = {c["type"]: c for c in world.fleet.pools["agents"].status["conditions"]}
    world.now += 50
    world.settle()
    second = {c["type"]: c for c in world.fleet.pools["agents"].status["conditions"]}
    assert first["Ready"]["lastTransitionTime"] != second["Ready"]["lastTransitionTime"]
    assert first["Stalled"]["lastTransitionTime"] == second["Stalled"]["lastTransitionTime"]


def ring_condition(fleet: Fleet) -> dict:
    (change,) = plan(replace(fleet, pools={"agents": replace(fleet.pools["agents"], status={})}), 9.0).statuses
    return next(c for c in change.status["conditions"] if c["type"] == "RingConverged")


@pytest.mark.parametrize(
    ("acknowledged", "status"),
    [
        (None, "Unknown"),
        ({}, "False"),
        ({"agents-0-1": {"agents": 0}}, "False"),
        ({"agents-0-1": {"agents": 1}}, "True"),
    ],
)
def test_the_ring_has_converged_when_every_process_acknowledged_its_epoch(acknowledged, status):
    world = World(empty_fleet(pools={"agents": pool(replicas=1)}))
    world.settle()
    assert ring_condition(replace(world.fleet, acknowledged=acknowledged))["status"] == status


def test_a_ring_has_not_converged_while_a_gateway_chooses_from_an_older_one():
    world = World(empty_fleet(pools={"agents": pool(replicas=1)}))
    world.settle()
    gateway = Pod("gateway-0", "uid-g", Component.GATEWAY, "", ready=True, running=True)
    fleet = replace(world.fleet, pods={**world.fleet.pods, gateway.name: gateway})
    told = {"agents-0-1": {"agents": 1}, "gateway-0": {"agents": 0}}
    waiting = ring_condition(replace(fleet, acknowledged=told))
    assert (waiting["status"], waiting["message"]) == ("False", "epoch 1 not yet seen by gateway-0")
    told["gateway-0"] = {"agents": 1}
    assert ring_condition(replace(fleet, acknowledged=told))["status"] == "True"


def test_conditions_of_other_writers_cause_no_write():
    world = World(empty_fleet(pools={"agents": pool(replicas=1)}))
    world.settle()
    resource = world.fleet.pools["agents"]
    theirs = {"type": "Scaling", "status": "True", "reason": "Hpa", "message": ""}
    status = {**resource.status, "conditions": [theirs, *resource.status["conditions"]]}
    assert plan(replace(world.fleet, pools={"agents": replace(resource, status=status)}), world.now).quiet


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "has no key fleet.json"),
        ({"fleet.json": "{"}, "document"),
        ({"fleet.json": '{"cluster": {"id": 70000}, "dataplane": {"image": "x"}}'}, "cluster.id"),
    ],
)
def test_a_wrong_fleet_config_names_the_field(data, says):
    with pytest.raises(FleetConfigError, match=says):
        parse_config(data)


def test_a_gateway_that_has_not_seen_the_ring_is_waited_for_and_named():
    world = World(empty_fleet(pools={"agents": pool(replicas=1)}))
    world.settle()
    gateway = Pod("voicefleet-gateway-x", "g", Component.GATEWAY, "", node="node-0", running=True, ready=True)
    fleet = replace(world.fleet, pods={**world.fleet.pods, gateway.name: gateway})
    behind = ring_condition(replace(fleet, acknowledged={"agents-0-1": {"agents": 1}}))
    assert (behind["status"], gateway.name in behind["message"]) == ("False", True)
    seen = {"agents-0-1": {"agents": 1}, gateway.name: {"agents": 1}}
    assert ring_condition(replace(fleet, acknowledged=seen))["status"] == "True"
