"""The loop in virtual time: what a change waits for while something else fails."""

import asyncio

import pytest

from tests.support.fleet_world import CONFIG
from tests.support.objects_api import Api
from tests.support.virtual_loop import virtually
from voicefleet_operator.cluster.apply import LedgerStore
from voicefleet_operator.handlers.metrics import LoopMetrics
from voicefleet_operator.handlers.reconcile import Reconciler
from voicefleet_operator.handlers.store import FleetStore


def resource(name: str, first: int, version: int) -> dict:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 1, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"replicas": 1, "ports": {"min": first, "max": first + 19}}}


def lived(api: Api, for_s: float) -> float:
    """Run the loop with a pool for a while, make another, and return how long its slice took to be written."""

    async def story() -> float:
        store = FleetStore("voice", "voicefleet-fleet")
        metadata = {"name": "voicefleet-fleet", "uid": "c", "resourceVersion": "1"}
        store.take("ConfigMap", {"metadata": metadata, "data": {"fleet.json": CONFIG.model_dump_json()}})
        ledger = LedgerStore(api)
        store.ledger = await ledger.read()
        make(store, "old", 20000)
        loop, metrics = asyncio.get_running_loop(), LoopMetrics()
        running = asyncio.create_task(Reconciler(api, store, ledger, metrics).run())
        try:
            await asyncio.sleep(for_s)
            api.calls.clear()
            make(store, "new", 21000)
            began = loop.time()
            async with asyncio.timeout(120):
                while not any(call[1:] == ("TopologySlice", "pool-new-0") for call in api.calls):
                    assert not running.done()
                    await asyncio.sleep(0.05)
            return loop.time() - began
        finally:
            running.cancel()

    def make(store: FleetStore, name: str, first: int) -> None:
        api.version += 1
        body = resource(name, first, api.version)
        api.objects["Transceiver", name] = body
        store.take("Transceiver", body)

    return virtually(story())


@pytest.mark.parametrize(("status", "at_most_s"), [(500, 6.0), (409, 6.0), (0, 31.0)])
def test_news_wait_for_seconds_while_one_object_fails_and_for_the_pause_while_the_server_is_away(status, at_most_s):
    for phase_s in range(200, 230, 5):  # of the pause that is under way
        api = Api()
        api.refuse = {("PodDisruptionBudget", "transceiver-old"): status}
        assert lived(api, phase_s) <= at_most_s


def test_news_of_a_fleet_at_rest_are_written_at_once():
    assert lived(Api(), 200) <= 0.3
