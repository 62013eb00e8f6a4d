"""Watches that died, a stuck queue, and the numbers that say so."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from tests.support.fleet_world import World, empty_fleet, pool
from tests.support.objects_api import Api
from tests.unit.test_operator_shell import pod, store
from voicefleet_operator.cluster.apply import LedgerStore
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.desired.gauges import HELP, fleet_gauges
from voicefleet_operator.desired.state import ForeignPod, Place
from voicefleet_operator.handlers.health import STUCK_AFTER_S, WATCH_DEAD_AFTER_S, WATCH_UNSURE_AFTER_S, Health
from voicefleet_operator.handlers.metrics import LoopMetrics
from voicefleet_operator.handlers.reconcile import Reconciler
from voicefleet_operator.handlers.store import FleetStore

KINDS = {"/api/v1/namespaces/voice/pods": "Pod", "/api/v1/nodes": "Node"}
PODS, NODES = KINDS


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def test_the_age_of_a_watch_is_since_its_last_byte_and_a_new_stream_counts():
    clock = Clock()
    watches = Watches(KINDS, clock)
    assert watches.ages_s() == {}
    watches.begin()
    stream = SimpleNamespace(total_bytes=0)
    watches.opened(PODS, stream)
    clock.now += 50
    assert watches.ages_s() == {"Pod": 50, "Node": 50}
    stream.total_bytes = 10
    assert watches.ages_s()["Pod"] == 0
    clock.now += 30
    assert watches.ages_s() == {"Pod": 30, "Node": 80}
    watches.opened(PODS, SimpleNamespace(total_bytes=0))
    assert watches.ages_s()["Pod"] == 0


def leading(clock: Clock, monkeypatch) -> tuple[Health, Watches, SimpleNamespace]:
    monkeypatch.setattr("time.monotonic", clock)
    watches, made = Watches(KINDS, clock), store()
    made.take_up()
    health = Health(made, watches, LoopMetrics())
    health.reconciler = SimpleNamespace(last_pass_at=clock.now, failing=False)
    watches.begin()
    return health, watches, health.reconciler


def test_a_dead_watch_takes_readiness_first_and_the_process_later(monkeypatch):
    clock = Clock()
    health, watches, loop = leading(clock, monkeypatch)
    clock.now += WATCH_UNSURE_AFTER_S + 1
    loop.last_pass_at = clock.now
    watches.opened(NODES, SimpleNamespace(total_bytes=0))
    assert health.problems(WATCH_UNSURE_AFTER_S) == ["nothing heard of Pod for 101 s"]
    assert health.problems(WATCH_DEAD_AFTER_S) == []
    clock.now += WATCH_DEAD_AFTER_S + 1
    loop.last_pass_at = clock.now
    assert len(health.problems(WATCH_DEAD_AFTER_S)) == 2


def test_a_change_that_waits_for_minutes_is_a_stuck_queue_unless_the_server_fails(monkeypatch):
    clock = Clock()
    health, watches, loop = leading(clock, monkeypatch)
    health._store.take("Pod", pod(7))
    clock.now += STUCK_AFTER_S + 1
    loop.last_pass_at = clock.now
    watches.begin()
    assert health.problems(WATCH_DEAD_AFTER_S) == ["a change waits since 181 s"]
    loop.failing = True
    assert health.problems(WATCH_DEAD_AFTER_S) == []
    loop.last_pass_at -= STUCK_AFTER_S + 1
    assert health.problems(WATCH_DEAD_AFTER_S) == ["no pass for 181 s"]


def test_a_standby_is_well_whatever_it_does_not_watch():
    health = Health(store(), Watches(KINDS), LoopMetrics())
    assert health.problems(0.0) == []


def test_what_vanished_while_nobody_watched_is_forgotten_and_what_is_newer_than_the_list_is_not():
    made = store()
    for version, name in ((5, "old"), (9, "new"), (6, "kept")):
        made.take("Pod", pod(version) | {"metadata": {**pod(version)["metadata"], "name": name}})
    assert made.forget_absent("Pod", {"kept"}, 8) == {"old"}
    assert set(made.fleet().pods) == {"new", "kept"}


def test_the_queue_counts_what_no_pass_has_taken_up():
    made = store()
    made.take_up()
    made.take("Pod", pod(7))
    made.take("Pod", pod(8, ready=False))
    assert made.waiting == 2
    assert made.take_up() is not None
    assert (made.waiting, made.waiting_since) == (0, None)
    assert made.take_up() is None


async def test_an_operator_without_a_configuration_is_not_ready_and_lives_on():
    made, watches, metrics = FleetStore("voice", "voicefleet-fleet"), Watches(KINDS), LoopMetrics()
    health = Health(made, watches, metrics)
    api = Api()
    health.reconciler = Reconciler(api, made, LedgerStore(api), metrics)
    made.take("Pod", pod(7))
    await health.reconciler.once()
    assert made.waiting_since is None, "nothing waits for a pass that cannot be made"
    assert health.problems(WATCH_DEAD_AFTER_S) == []
    assert (await health._readyz(None)).status == 503
    assert api.calls == []


def samples(world: World) -> dict[tuple[str, str], float]:
    return {(s.name, "/".join(s.labels.values())): s.value for s in fleet_gauges(world.fleet, world.now)}


def test_a_series_ends_with_its_object_and_every_series_has_a_help():
    world = World(empty_fleet(3, pools={"agents": pool(replicas=3), "other": pool("other", replicas=1)}))
    world.settle()
    found = samples(world)
    assert found["voicefleet_pool_members", "agents/active"] == 3
    assert found["voicefleet_pool_ports", "agents/free"] == 17
    assert found["voicefleet_condition", "Transceiver/agents/Ready"] == 1
    assert {name for name, _ in found} <= set(HELP)
    del world.fleet.pools["other"]
    assert not any("other" in labels for _, labels in samples(world))


def test_numbers_that_nobody_may_have_are_not_free():
    world = World(empty_fleet(3, pools={"agents": pool(replicas=3)}))
    world.settle()
    [used, *_] = [pod.port for pod in world.fleet.pods.values()]
    quarantine = {Place("node-0", 20016): world.now + 60, Place("node-1", 20016): world.now + 90}
    quarantine |= {Place("node-0", 20017): world.now - 1, Place("node-0", used): world.now + 60}
    foreign = {"games/a": ForeignPod("games/a", "node-1", frozenset({20018, used, 9000}))}
    world.fleet = replace(world.fleet, quarantine=quarantine, foreign=foreign)
    ports = {who: n for (name, who), n in samples(world).items() if name == "voicefleet_pool_ports"}
    assert ports == {
        "agents/used": 3,
        "agents/draining": 0,
        "agents/quarantined": 1,
        "agents/foreign": 1,
        "agents/free": 15,
    }


def test_every_metric_of_the_operator_stands_in_the_manual():
    """In full, or as the end of a name that stands before it in the same cell."""
    metrics = LoopMetrics()
    Health(store(), Watches(KINDS), metrics)
    families = [family for family in metrics.registry.collect() if not family.name.startswith("python_")]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families} | set(HELP)
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    said = {word.partition("{")[0] for word in re.findall(r"`([a-z_]+(?:\{[a-z,]+\})?)`", text)}
    ends = tuple(word for word in said if word.startswith("_"))
    assert {name for name in names if name not in said and not name.endswith(ends)} == set()


def test_the_exposition_names_watches_and_requests_by_kind_verb_and_code():
    watches, metrics = Watches(KINDS), LoopMetrics()
    Health(store(), watches, metrics)
    watches.begin()
    metrics.count_request("apply", 200)
    text = metrics.write()[0].decode()
    assert 'voicefleet_operator_watch_age_seconds{kind="Pod"}' in text
    assert 'voicefleet_operator_api_requests_total{code="200",verb="apply"} 1.0' in text
    assert "voicefleet_operator_leader 0.0" in text
