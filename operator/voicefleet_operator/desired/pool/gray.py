"""Gray members: they answer offers, and the media of their calls never comes up. Pure; time is an argument.

    in the ring ──evidence──▶ out: no new calls ──time──▶ on probation: a tenth of its share ──calls that work──▶ in the ring
                                 ▲                               │
                                 └──────── twice as long ────────┘ calls that fail again

Evidence is what the member itself counts (its heartbeats: calls whose media came up, calls whose did not), judged beside its
pool. A client's fault (a region whose UDP is blocked, a broken app) fails on every member alike and takes nobody out:
a member must fail `MIN_FAILED` calls, succeed at less than half of the others' rate, and be so far from it that chance
gives that once in ten million looks.
Whatever the evidence, half of a pool's ready members stay in the ring.

A verdict stands in an annotation of the pod: written when it changes, read again by the next operator. While the
registry is away members are asked for their counts, a few at a time; without any, verdicts stay and still run out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, comb
from typing import NamedTuple

from voicefleet_contract.outside import parse_json
from voicefleet_operator.desired.state import Component, Fleet, Pod, PoolResource, Verdict

WINDOW_S = 60.0  # for members with few calls …
RECENT_S = 15.0  # … and for a busy one that was well until now
MIN_FAILED = 5  # calls, in the window; of a pool that is otherwise well, the fifth failed call takes the member out
MIN_FAILED_ON_PROBATION = 3
PROVEN_AFTER = 3  # calls whose media came up, on probation
OTHERS_UP = 5  # without so many calls that work elsewhere there is nothing to compare with
_CHANCE = 1e-7  # a pool of hundreds is looked at every few seconds: a thousandth would come true every minute
_CALLS_COUNTED = 200  # more say the same, and cost the arithmetic
_BEST_RATE = 0.98  # clients fail now and then: nobody is held to perfection
OUT_S, OUT_AT_MOST_S = 30.0, 600.0


class Counts(NamedTuple):
    """Calls of a member since its start: media came up, or did not in time."""

    up: int
    failed: int


class Sample(NamedTuple):
    """What a member had counted at a time."""

    at: float
    counts: Counts


Member = tuple[int, int]  # slot, generation
History = Mapping[Member, tuple[Sample, ...]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A pod's new verdict; None: it is a member like any other again."""

    pod: str
    uid: str
    verdict: Verdict | None


def remember(history: History, counts: Mapping[Member, Counts], now: float) -> dict[Member, tuple[Sample, ...]]:
    """Return the history with what members count now. Members that say nothing are forgotten."""
    found: dict[Member, tuple[Sample, ...]] = {}
    for member, said in counts.items():
        samples = history.get(member, ())
        if samples and (said.up < samples[-1].counts.up or said.failed < samples[-1].counts.failed - 1):
            samples = ()  # its process began anew (a late call that came up after all takes one failure back)
        if not samples or samples[-1].counts != said:
            samples = (*samples, Sample(now, said))
        # One sample from before the window stays: it says where the window begins.
        old = [i for i, sample in enumerate(samples) if sample.at <= now - WINDOW_S]
        found[member] = samples[old[-1] :] if old else samples
    return found


def judge(fleet: Fleet, pool: PoolResource, history: History, now: float) -> tuple[tuple[Judgement, ...], float | None]:
    """Return the verdicts that change now, and when one runs out."""
    if pool.paused or pool.deleting:
        return (), None
    if not history and all(pod.verdict is None for pod in fleet.pods.values()):
        return (), None
    pods = [pod for pod in fleet.pods_of(Component.TRANSCEIVER, pool.name) if pod.ready and not pod.leaving]
    looks = [_look(pods, history, now, span_s) for span_s in (RECENT_S, WINDOW_S)]
    evidence = looks[-1].each
    worse = {pod.name: look for look in reversed(looks) for pod in pods if _is_worse(pod, look)}
    changed: dict[str, Judgement] = {}
    waits: list[float] = []
    for pod in pods:
        verdict = pod.verdict
        if verdict is not None and verdict.out and now < verdict.at:
            waits.append(verdict.at)
        elif verdict is not None and verdict.out:
            back = Verdict(out=False, at=now, times=verdict.times, why=verdict.why)
            changed[pod.name] = Judgement(pod.name, pod.uid, back)
        elif verdict is not None and evidence[pod.name].up >= PROVEN_AFTER and pod.name not in worse:
            changed[pod.name] = Judgement(pod.name, pod.uid, None)
    inside = [pod for pod in pods if not pod.ejected]
    suspects = sorted(
        (pod for pod in inside if pod.name not in changed and pod.name in worse),
        key=lambda pod: (-evidence[pod.name].failed, pod.name),
    )
    spare = len(inside) - ceil(len(pods) / 2)
    for pod in suspects[: max(0, spare)]:
        times = 1 if pod.verdict is None else pod.verdict.times + 1
        until = now + min(OUT_AT_MOST_S, OUT_S * 2 ** (times - 1))
        changed[pod.name] = Judgement(pod.name, pod.uid, Verdict(True, until, times, _why(pod, worse[pod.name])))
    return tuple(changed[name] for name in sorted(changed)), min(waits, default=None)


_MAX_VERDICT_BYTES = 4_096


def encode_verdict(verdict: Verdict) -> str:
    """Spell a verdict as the pod's annotation."""
    phase = "out" if verdict.out else "probation"
    return json.dumps({"phase": phase, "at": round(verdict.at), "times": verdict.times, "why": verdict.why})


def decode_verdict(text: str) -> Verdict:
    """Read a pod's annotation. Raises ValueError."""
    try:
        said = parse_json(text, _MAX_VERDICT_BYTES)
        at, times = said["at"], said["times"]
        if type(at) not in (int, float) or type(times) is not int:
            raise TypeError("'at' and 'times' are numbers")
        return Verdict(said["phase"] == "out", float(at), times, str(said["why"])[:200])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{text[:200]!r} is not a verdict: {error}") from None


def _evidence(pod: Pod, history: History, now: float, span_s: float) -> Counts:
    """Count a member's calls of the last seconds, or since it is on probation."""
    samples = history.get((pod.slot, pod.generation), ())
    if not samples:
        return Counts(0, 0)
    since = now - span_s if pod.verdict is None or pod.verdict.out else max(now - span_s, pod.verdict.at)
    first = next((s for s in reversed(samples) if s.at <= since), samples[0]).counts
    last = samples[-1].counts
    return Counts(max(0, last.up - first.up), max(0, last.failed - first.failed))


class _Look(NamedTuple):
    """What the members of a pool counted in one span, and what those without a verdict counted together."""

    each: Mapping[str, Counts]
    sound: Counts

    def others(self, pod: Pod) -> Counts:
        mine = self.each[pod.name] if pod.verdict is None else Counts(0, 0)
        return Counts(self.sound.up - mine.up, self.sound.failed - mine.failed)


def _look(pods: list[Pod], history: History, now: float, span_s: float) -> _Look:
    each = {pod.name: _evidence(pod, history, now, span_s) for pod in pods}
    sound = [each[pod.name] for pod in pods if pod.verdict is None]
    return _Look(each, Counts(sum(one.up for one in sound), sum(one.failed for one in sound)))


def _is_worse(pod: Pod, look: _Look) -> bool:
    mine, others = look.each[pod.name], look.others(pod)
    if mine.failed < (MIN_FAILED if pod.verdict is None else MIN_FAILED_ON_PROBATION) or others.up < OTHERS_UP:
        return False
    if others.failed > others.up:
        return False  # most calls fail everywhere: whatever it is, it isn't this member
    rate = min(_BEST_RATE, others.up / (others.up + others.failed))
    calls = mine.up + mine.failed
    if mine.up / calls >= rate / 2:
        return False
    up = mine.up * min(calls, _CALLS_COUNTED) // calls
    calls = min(calls, _CALLS_COUNTED)
    return sum(comb(calls, k) * rate**k * (1 - rate) ** (calls - k) for k in range(up + 1)) < _CHANCE


def _why(pod: Pod, look: _Look) -> str:
    mine, others = look.each[pod.name], look.others(pod)
    return (
        f"no media in {mine.failed} of its last {mine.up + mine.failed} calls; "
        f"on the others in {others.failed} of {others.up + others.failed}"
    )
