"""Gray members in virtual time: calls fall on members by the published ring, heartbeats count them, plans judge."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fleet_world import World, empty_fleet, pool
from tests.unit.test_operator_shell import store
from voicefleet_contract.registry import FIRST_MEDIA_S
from voicefleet_contract.topology import MemberState, TopologyIndex, join
from voicefleet_operator.desired.pool.gray import (
    MIN_FAILED,
    OUT_S,
    WINDOW_S,
    Counts,
    decode_verdict,
    encode_verdict,
    judge,
    remember,
)
from voicefleet_operator.desired.state import Verdict
from voicefleet_operator.handlers.pollers import media_without_registry

POLL_S = 5


class Calls:
    """Callers of a pool. ``fails`` is slot → the chance that a call there gets no media."""

    def __init__(self, replicas: int, seed: int = 1) -> None:
        self.world = World(
            empty_fleet(4, pools={"agents": pool(replicas=replicas, ports={"min": 20000, "max": 20199})})
        )
        self.world.settle()
        self.chance = random.Random(seed)
        self.fails: dict[int, float] = {}
        self.everywhere = 0.0
        self.placed: Counter[int] = Counter()
        self._due: list[tuple[float, int, bool]] = []
        self._counts: dict[int, Counts] = {}

    def run(self, seconds: int, calls_per_s: int = 4) -> None:
        slices, index = None, None
        for _ in range(seconds):
            if self.world.fleet.slices != slices:  # gateways, too, make a ring when there is news
                slices = dict(self.world.fleet.slices)
                index = TopologyIndex(join(slices.values()))
            for _ in range(calls_per_s):
                slot = next(iter(index.ring("agents").owners(self.chance.randbytes(8))), None)
                if slot is None:
                    continue
                failed = self.chance.random() < max(self.fails.get(slot, 0.0), self.everywhere)
                self.placed[slot] += 1
                self._due.append((self.world.now + (FIRST_MEDIA_S if failed else 1), slot, failed))
            self._settle_calls()
            if int(self.world.now) % POLL_S == 0:
                self._poll()
            self.world.step()

    def _settle_calls(self) -> None:
        for _, slot, failed in [call for call in self._due if call[0] <= self.world.now]:
            up, down = self._counts.get(slot, Counts(0, 0))
            self._counts[slot] = Counts(up + (not failed), down + failed)
        self._due = [call for call in self._due if call[0] > self.world.now]

    def _poll(self) -> None:
        pods = [pod for pod in self.world.fleet.pods.values() if pod.ready]
        counts = {(pod.slot, pod.generation): self._counts.get(pod.slot, Counts(0, 0)) for pod in pods}
        media = remember(self.world.fleet.media, counts, self.world.now)
        self.world.fleet = replace(self.world.fleet, media=media)

    def out(self) -> set[int]:
        return {pod.slot for pod in self.world.fleet.pods.values() if pod.verdict is not None and pod.verdict.out}

    def verdict(self, slot: int) -> Verdict | None:
        return next(pod.verdict for pod in self.world.fleet.pods.values() if pod.slot == slot)

    def condition(self) -> dict:
        return {c["type"]: c for c in self.world.fleet.pools["agents"].status["conditions"]}["MembersHealthy"]


def test_the_fifth_call_without_media_takes_a_member_out_and_the_status_says_why():
    calls = Calls(3)
    calls.run(30)
    calls.fails = {1: 1.0}
    before = calls.placed[1]
    while not calls.out():
        calls.run(1)
        assert calls.world.now < 1_200
    assert calls.out() == {1}
    known = calls._counts[1].failed
    assert MIN_FAILED <= known <= MIN_FAILED + POLL_S * 4  # counted until the next look
    assert calls.placed[1] - before <= known + (FIRST_MEDIA_S + 1) * 4
    calls.run(1)  # the pod's annotation is observed
    said = calls.condition()
    assert (said["status"], said["reason"]) == ("False", "MembersEjected")
    assert "agents-1-1: no media in" in said["message"]
    topology = TopologyIndex(join(calls.world.fleet.slices.values()))
    member = topology.member(1, 1)
    assert (member.state, member.gray) == (MemberState.STARTING, True)
    assert 1 not in topology.ring("agents").slots


def test_a_member_that_is_out_gets_no_call_returns_on_probation_with_a_tenth_and_is_proven_by_calls():
    calls = Calls(3)
    calls.fails = {1: 1.0}
    while not calls.out():
        calls.run(1)
    calls.run(1)
    placed = calls.placed[1]
    calls.run(int(OUT_S) - 5)
    assert calls.placed[1] == placed
    calls.fails = {}
    while calls.out():
        calls.run(1)
    calls.run(2)
    assert calls.verdict(1).out is False
    weights = {m.slot: m.weight for m in join(calls.world.fleet.slices.values()).pools[0].members}
    assert weights[1] * 10 == weights[0]
    assert calls.condition()["reason"] == "OnProbation"
    calls.run(240)
    assert calls.verdict(1) is None
    assert calls.condition()["status"] == "True"


def test_a_member_that_stays_gray_is_out_twice_as_long_each_time_and_costs_few_calls():
    calls = Calls(4)
    calls.fails = {1: 1.0}
    ends: list[float] = []
    for _ in range(1_500):
        calls.run(1)
        verdict = calls.verdict(1)
        if verdict is not None and verdict.out and verdict.times > len(ends):
            ends.append(verdict.at - calls.world.now)
    assert [round(end / OUT_S) for end in ends[:4]] == [1, 2, 4, 8]
    assert calls.placed[1] < 0.03 * calls.placed.total()


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_failure_of_all_takes_nobody_out(share: float, seed: int):
    calls = Calls(5, seed)
    calls.run(60)
    calls.everywhere = share  # a region's UDP is blocked, an app is broken: its callers fall on all members alike
    calls.run(400)
    calls.everywhere = 0.0
    calls.run(120)
    assert calls.out() == set()
    assert all(pod.verdict is None for pod in calls.world.fleet.pods.values())


def test_a_member_that_is_a_little_worse_than_the_others_stays():
    calls = Calls(4)
    calls.fails = {1: 0.35}
    calls.run(600)
    assert calls.verdict(1) is None


def test_when_most_calls_fail_everywhere_one_on_which_all_fail_is_not_blamed():
    calls = Calls(4)
    calls.run(60)
    calls.everywhere, calls.fails = 0.7, {1: 1.0}
    calls.run(400)
    assert calls.verdict(1) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_member_of_few_calls_is_not_put_out_by_chance(seed: int):
    calls = Calls(6, seed)
    calls.everywhere = 0.4
    calls.run(900, calls_per_s=2)
    assert all(pod.verdict is None for pod in calls.world.fleet.pods.values())


def test_half_of_the_members_stay_whatever_the_evidence():
    calls = Calls(6)
    calls.run(30)
    calls.fails = dict.fromkeys((0, 1, 2), 1.0)
    most = set()
    for _ in range(300):
        calls.run(1)
        assert len(calls.out()) <= 3
        most = max(most, calls.out(), key=len)
        if most == {0, 1, 2}:  # now a fourth, with two left to compare it with
            calls.fails[3] = 1.0
    assert most == {0, 1, 2}


def test_a_pool_of_one_is_never_judged():
    calls = Calls(1)
    calls.fails = {0: 1.0}
    calls.run(200)
    assert calls.out() == set()


def test_of_two_the_gray_one_goes():
    calls = Calls(2)
    calls.run(30)
    calls.fails = {1: 1.0}
    while not calls.out():
        calls.run(1)
        assert calls.world.now < 1_200
    assert calls.out() == {1}


def test_while_the_registry_is_away_verdicts_stay_and_run_out_and_none_is_made():
    calls = Calls(3)
    calls.fails = {1: 1.0}
    while not calls.out():
        calls.run(1)
    calls._poll = lambda: None
    calls.run(int(OUT_S) + 5)
    assert calls.verdict(1).out is False
    calls.fails = {1: 1.0, 2: 1.0}
    calls.run(int(WINDOW_S) * 2)
    assert calls.out() == set()


def test_another_operator_reads_the_verdict_from_the_pod():
    verdict = Verdict(True, 1_060.0, 2, "no media in 5 of its last 5 calls")
    assert decode_verdict(encode_verdict(verdict)) == verdict
    for text in ("{", "[]", '{"phase": "out"}', "null", '{"phase":"out","at":"x","times":1,"why":""}'):
        with pytest.raises(ValueError):
            decode_verdict(text)


def test_a_process_that_began_anew_is_judged_by_its_own_calls():
    history = remember({}, {(1, 1): Counts(50, 40)}, 10.0)
    history = remember(history, {(1, 1): Counts(0, 2)}, 15.0)
    assert [sample.counts for sample in history[1, 1]] == [Counts(0, 2)]


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.integers(0, 900),
)
def test_whatever_members_count_half_of_them_stay(counts, already, later):
    calls = Calls(len(counts))
    pods = {
        pod.name: replace(pod, verdict=Verdict(True, 1_500.0, 1, "") if already[pod.slot] and pod.slot % 2 else None)
        for pod in calls.world.fleet.pods.values()
    }
    fleet = replace(calls.world.fleet, pods=pods)
    start = remember({}, {(p.slot, p.generation): Counts(0, 0) for p in pods.values()}, 1_000.0)
    said = {(p.slot, p.generation): Counts(*counts[p.slot]) for p in pods.values()}
    history = remember(start, said, 1_030.0)
    out = {pod.name for pod in pods.values() if pod.verdict is not None}
    for judgement in judge(fleet, fleet.pools["agents"], history, 1_031.0 + later)[0]:
        if judgement.verdict is not None and judgement.verdict.out:
            out.add(judgement.pod)
        else:
            out.discard(judgement.pod)
    assert len(out) <= max(len(pods) // 2, sum(already[p.slot] and p.slot % 2 for p in pods.values()))


class Control:
    """Members that say what they counted, to whoever asks them."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []

    async def media(self, pods):
        pods = list(pods)
        self.asked.append({pod.slot for pod in pods})
        return {(pod.slot, pod.generation): Counts(pod.slot, 0) for pod in pods}


async def test_without_a_registry_members_are_asked_in_turns_and_keep_what_they_said():
    calls, made, control = Calls(150), store(), Control()
    for _ in range(3):
        counts = await media_without_registry(calls.world.fleet, made, control)
        made.media = remember(made.media, counts, 1.0)
    assert [len(asked) for asked in control.asked] == [64, 64, 64]
    assert set.union(*control.asked) == set(range(150))
    assert {slot: samples[-1].counts.up for (slot, _), samples in made.media.items()} == {s: s for s in range(150)}
