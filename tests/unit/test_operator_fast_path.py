"""What the operator gives a relay for its kernel path, and what a VoiceRelay says of it."""

import dataclasses

import pytest

from tests.support.fleet_world import World
from tests.unit.test_operator_relays_leave import seen, two_relays
from voicefleet_contract.resources import Datapath
from voicefleet_operator.desired.relay.daemonset import relay_daemonset


def pod_of(datapath):
    fleet = two_relays()
    resource = fleet.relays["fra"]
    resource = dataclasses.replace(resource, spec=resource.spec.model_copy(update={"datapath": datapath}))
    spec = relay_daemonset(fleet.config, "voice", resource)["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


@pytest.mark.parametrize("datapath", [Datapath.AUTO, Datapath.TC, Datapath.XDP])
def test_a_kernel_path_gets_two_capabilities_and_the_bpf_file_system(datapath):
    spec, container = pod_of(datapath)
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]}
    assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
    assert {"name": "bpffs", "hostPath": {"path": "/sys/fs/bpf"}} in spec["volumes"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["VOICEFLEET_DATAPATH"] == datapath.value
    assert environment["VOICEFLEET_RELAY_NAME"] == "fra"


def test_user_space_gets_neither():
    spec, container = pod_of(Datapath.USERSPACE)
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["runAsNonRoot"]
    assert not any("hostPath" in volume for volume in spec["volumes"])


def fast_path(datapaths, **spec):
    world = World(two_relays())
    resource = world.fleet.relays["fra"]
    resource = dataclasses.replace(resource, spec=resource.spec.model_copy(update=spec))
    seen(world, datapaths=datapaths, relays={"fra": resource})
    found = {c["type"]: c for c in world.fleet.relays["fra"].status["conditions"]}["FastPath"]
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize(
    ("datapaths", "said"),
    [
        (None, ("Unknown", "RegistryAway", "no Redis, or not reachable: the relays cannot tell")),
        ({}, ("Unknown", "NotToldYet", "no relay has told yet how it moves media")),
        (
            {"fra-relay-node-0": ("TCX", "on eth0"), "fra-relay-node-1": ("Clsact", "on eth0")},
            ("True", "InKernel", "Clsact, TCX on 2 nodes"),
        ),
        (
            {
                "fra-relay-node-0": ("TCX", "on eth0; XDPNative: no"),
                "fra-relay-node-1": ("XDPNative", "on eth0; native XDP is used"),
            },
            (
                "True",
                "InKernel",
                "TCX, XDPNative on 2 nodes; node-0: XDPNative: no, node-1: native XDP is used",
            ),
        ),
        (
            {
                "fra-relay-node-0": ("TCX", "on eth0"),
                "fra-relay-node-1": ("Userspace", "no BPF file system at /sys/fs/bpf"),
            },
            ("False", "FellBackToUserspace", "node-1: no BPF file system at /sys/fs/bpf"),
        ),
    ],
)
def test_the_condition_says_how_media_moves_and_who_fell_back_why(datapaths, said):
    assert fast_path(datapaths) == said


def test_several_workers_say_that_the_kernel_has_no_part_in_them():
    said = fast_path({}, datapath=Datapath.USERSPACE, workers=3)
    assert said == (
        "False",
        "NotAskedFor",
        "spec.datapath: Userspace; 3 workers on each node forward, which only user space has",
    )


def test_user_space_that_was_asked_for_is_no_fall_back():
    told = {"fra-relay-node-0": ("Userspace", "user space is asked for")}
    assert fast_path(told, datapath=Datapath.USERSPACE) == ("False", "NotAskedFor", "spec.datapath: Userspace")
