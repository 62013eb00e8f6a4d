"""Where the demo and the stories run: what the current context must bring, and which of its nodes are used."""

import pytest

from e2e import site
from e2e.cluster.steps import ClusterError

IMAGES = {
    f"VOICEFLEET_IMAGE_{name}": f"registry.example/{name.lower()}:1" for name in ("OPERATOR", "DATAPLANE", "REDIS")
}


@pytest.fixture
def _context(monkeypatch):
    monkeypatch.setenv("VOICEFLEET_USE_CURRENT_CONTEXT", "1")
    monkeypatch.setattr(site.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(site, "run", lambda _: "mine\n")


def node(name, internal="10.0.0.1", external="", *, ready="True", taints=(), **spec):
    addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": internal}]
    addresses += [{"type": "ExternalIP", "address": external}] if external else []
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": list(taints), **spec},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": ready}]},
    }


@pytest.mark.usefixtures("_context")
def test_everything_that_the_current_context_lacks_is_named_at_once(monkeypatch):
    monkeypatch.setattr(site.shutil, "which", lambda name: None if name == "helm" else name)
    with pytest.raises(ClusterError, match=r"program helm, VOICEFLEET_IMAGE_OPERATOR, VOICEFLEET_IMAGE_REDIS\b"):
        site.find_site({"VOICEFLEET_IMAGE_DATAPLANE": "x", "VOICEFLEET_IMAGE_OPERATOR": ""})


@pytest.mark.usefixtures("_context")
def test_the_context_of_the_start_stays_the_one_that_is_used():
    found = site.find_site(IMAGES)
    assert found.kubectl == ("kubectl", "--context", "mine")
    assert found.helm == ("helm", "--kube-context", "mine")
    assert found.image("operator") == "registry.example/operator:1"


@pytest.mark.usefixtures("_context")
def test_what_a_context_cannot_give_is_an_error_that_says_so():
    found = site.find_site(IMAGES)
    with pytest.raises(ClusterError, match="VOICEFLEET_IMAGE_OPERATOR_PREVIOUS is not set"):
        found.image("operator_previous")
    with pytest.raises(ClusterError, match="forges; run it on the local cluster"):
        found.only_local("it forges")


def test_nodes_that_take_no_pods_are_left_out():
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    items = [
        node("c"),
        node("tainted", taints=[taint]),
        node("cordoned", unschedulable=True),
        node("lost", ready="Unknown"),
        node("a"),
    ]
    assert [found.name for found in site.usable_nodes(items)] == ["a", "c"]


@pytest.mark.parametrize(("second", "expected"), [("203.0.113.2", "203.0.113.1"), ("", "10.0.0.1")])
def test_external_addresses_are_used_when_every_node_has_one(second, expected):
    items = [node("a", "10.0.0.1", "203.0.113.1"), node("b", "10.0.0.2", second)]
    found = site.usable_nodes(items)[0]
    assert (found.address, found.internal) == (expected, "10.0.0.1")
