"""What becomes of a plan when the API server refuses, conflicts, fails or is away: the order, and what goes on."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import World, empty_fleet, pool
from tests.support.objects_api import Api
from voicefleet_operator.cluster.api import KubeError
from voicefleet_operator.cluster.apply import LedgerStore, Outcome, apply_plan, read_quarantine
from voicefleet_operator.desired.plan import Plan, plan
from voicefleet_operator.desired.pool.steps import Fence
from voicefleet_operator.desired.state import Place

QUARANTINE = {Place("node-0", 20001): 601.0}
WEBHOOK = 'Internal error occurred: failed calling webhook "pods.example.com": no endpoints available'


class Store:
    """What the operator would remember."""

    def __init__(self) -> None:
        self.took, self.lost = [], []

    def take(self, kind, body):
        self.took.append((kind, body["metadata"]["name"]))

    def forget(self, kind, name):
        self.lost.append((kind, name))


def new_pools(*names: str) -> Plan:
    ports = {name: {"min": 20000 + 100 * n, "max": 20099 + 100 * n} for n, name in enumerate(names)}
    pools = {name: pool(name, replicas=2, ports=ports[name]) for name in names}
    return plan(empty_fleet(pools=pools), 1.0)


async def carry_out(api: Api, todo: Plan, store: Store | None = None) -> Outcome:
    ledger, store = LedgerStore(api), store or Store()
    await ledger.read()
    return await apply_plan(api, ledger, todo, 1.0, store.take, store.forget)


def kinds(api: Api) -> list[str]:
    return [call[1] for call in api.calls]


async def test_the_topology_goes_first_and_the_ledger_before_any_pod():
    api = Api()
    await carry_out(api, new_pools("agents"))
    assert kinds(api)[:4] == ["TopologySlice", "ConfigMap", "Pod", "Pod"]
    assert api.objects["ConfigMap", "voicefleet-slots-0"]["data"] == {"0": "agents 1", "1": "agents 1"}


async def test_the_quarantine_is_written_before_anything_is_done_about_it_and_read_back():
    api, store = Api(), Store()
    await carry_out(api, Plan(quarantine=QUARANTINE, fences=(Fence("agents-4-2", "u"),)), store)
    assert kinds(api) == ["ConfigMap", "Pod"]
    assert await read_quarantine(api) == QUARANTINE
    assert ("ConfigMap", "voicefleet-ports") in store.took


async def test_when_another_operator_wrote_the_ledger_no_pod_is_made():
    api = Api()
    api.refuse = {"ConfigMap": 409}
    with pytest.raises(KubeError):
        await carry_out(api, new_pools("agents"))
    assert kinds(api) == ["TopologySlice", "ConfigMap"]


@pytest.mark.parametrize("trouble", [403, KubeError(500, "POST", WEBHOOK)])
async def test_what_one_pool_is_refused_keeps_nothing_from_the_others(trouble):
    api = Api()
    api.refuse = {("Pod", "agents-0-1"): trouble, ("Pod", "agents-1-1"): trouble}
    outcome = await carry_out(api, new_pools("agents", "others"))
    assert outcome.failed is None
    assert list(outcome.refused) == [("Transceiver", "agents")]
    assert {name for kind, name in api.objects if kind == "Pod"} == {"others-2-1", "others-3-1"}
    assert ("Transceiver", "agents") in api.objects  # its status


async def test_one_object_that_fails_is_told_and_the_rest_of_the_plan_is_done():
    api = Api()
    api.refuse = {("Pod", "agents-0-1"): 500}
    outcome = await carry_out(api, new_pools("agents", "others"))
    assert outcome.failed is not None and outcome.failed.status == 500
    assert outcome.refused == {}
    assert {name for kind, name in api.objects if kind == "Pod"} == {"agents-1-1", "others-2-1", "others-3-1"}
    assert ("PodDisruptionBudget", "transceiver-others") in api.objects
    assert ("Transceiver", "others") in api.objects


@pytest.mark.parametrize("status", [0, 429])
async def test_a_server_that_is_away_or_asks_for_a_pause_is_asked_for_nothing_more(status):
    api = Api()
    api.refuse = {"Pod": status}
    outcome = await carry_out(api, new_pools("agents"))
    assert outcome.failed is not None and outcome.failed.status == status
    assert set(kinds(api)) == {"TopologySlice", "ConfigMap", "Pod"}
    api = Api()
    api.refuse = {"TopologySlice": status}
    await carry_out(api, new_pools("agents"))
    assert set(kinds(api)) == {"TopologySlice"}, "neither claim nor pod"


async def test_slices_that_are_stale_stay_until_the_new_ones_are_out():
    world = World(empty_fleet(pools={"agents": pool(replicas=2)}))
    world.settle()
    todo = plan(replace(world.fleet, pools={"others": pool("others", replicas=1)}), world.now)
    assert todo.stale_slices == ("pool-agents-0",)
    api = Api()
    api.refuse = {"TopologySlice": 500}
    await carry_out(api, todo)
    assert ("delete", "TopologySlice", "pool-agents-0") not in api.calls
    api = Api()
    await carry_out(api, todo)
    assert ("delete", "TopologySlice", "pool-agents-0") in api.calls


async def test_a_conflict_over_a_status_forgets_no_pool():
    """A pool that is not known is out of the topology, and its slots are given away."""
    api, store = Api(), Store()
    there = {"metadata": {"name": "agents", "uid": "uid-agents", "resourceVersion": "5"}}
    api.objects["Transceiver", "agents"] = there
    api.refuse = {"Transceiver": 409}
    outcome = await carry_out(api, new_pools("agents"), store)
    assert outcome.failed is not None and outcome.failed.status == 409
    assert store.lost == []
    assert ("Transceiver", "agents") in store.took


@pytest.mark.parametrize(
    ("error", "forgotten"),
    [
        (KubeError(404, "PATCH", 'transceivers.voicefleet.dev "agents" not found'), True),
        (KubeError(404, "PATCH", "404 page not found", said=False), False),  # its CRD is not served just now
    ],
)
async def test_a_pool_is_forgotten_when_the_server_says_that_there_is_none(error, forgotten):
    api, store = Api(), Store()
    api.refuse = {"Transceiver": error}
    outcome = await carry_out(api, new_pools("agents"), store)
    assert (("Transceiver", "agents") in store.lost) is forgotten
    assert (outcome.failed is None) is forgotten


async def test_a_pod_whose_name_is_another_ones_by_now_is_forgotten():
    api, store = Api(), Store()
    api.refuse = {"Pod": 409}
    outcome = await carry_out(api, Plan(fences=(Fence("agents-4-2", "old"),)), store)
    assert store.lost == [("Pod", "agents-4-2")]
    assert outcome.failed is None
