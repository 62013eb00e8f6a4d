"""How even a ring is with and without its bound, what evenness costs, and how much moves when members come and go.

Counted, not timed, in virtual time: calls arrive at random and last an exponential time; four gateways with no word from each
other place them with the code that runs in production (contract.ring, core.loads). Rounds differ by their random seed.

    .venv/bin/python -m bench.ring [--quick]
"""

import argparse
import heapq
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bench.report import Report
from voicefleet_contract.ring import LOAD_FACTOR, LOAD_SLACK, WEIGHT, Ring, imbalance, load_bound
from voicefleet_contract.topology import Member
from voicefleet_dataplane.core.gateway.loads import Loads
from voicefleet_dataplane.shell.gateway.owner_search import MAX_ASKED

GATEWAYS = 4
CALL_S = 300.0
CALLS_PER_MEMBER = 40
KEYS = 20_000


class Pool:
    """Members that count their calls, and gateways that place them."""

    def __init__(self, weights: Mapping[int, int], *, bounded: bool) -> None:
        self.ring = Ring(weights)
        self.members = {
            slot: Member(slot=slot, generation=1, address="10.0.0.1", port=20000, weight=weight)
            for slot, weight in weights.items()
        }
        self.held = dict.fromkeys(weights, 0)
        self.gateways = [Loads() for _ in range(GATEWAYS)]
        self.bounded = bounded
        self.asked = 0

    def place(self, key: bytes, gateway: Loads, now: float) -> int:
        """Walk as shell.owner_walk does; gives the owner."""
        busy = []
        for slot in self.ring.owners(key):
            if len(busy) == MAX_ASKED:
                break
            self.asked += 1
            bound = gateway.bound(self.members[slot], now) if self.bounded else None
            taken = bound is None or self.held[slot] < bound
            gateway.hear(self.members[slot], self.held[slot], now)
            self.held[slot] += taken
            if taken:
                return slot
            busy.append(slot)
        self.asked += 1
        emptiest = min(busy, key=lambda slot: self.held[slot])
        self.held[emptiest] += 1
        return emptiest


class Spread(NamedTuple):
    """What a run gave, over its second half."""

    imbalance: float  # the mean over time
    beyond_percent: float  # calls that a member got which held its true bound already
    asked: float  # members for a call


def run(weights: Mapping[int, int], *, bounded: bool, seed: int, calls: int) -> Spread:
    """Place calls, and watch."""
    chance, pool = random.Random(seed), Pool(weights, bounded=bounded)
    per_s = CALLS_PER_MEMBER * len(weights) / CALL_S
    now, ends, seen, beyond, weight = 0.0, list[tuple[float, int]](), list[float](), 0, sum(weights.values())
    for number in range(calls):
        now += chance.expovariate(per_s)
        while ends and ends[0][0] <= now:
            pool.held[heapq.heappop(ends)[1]] -= 1
        slot = pool.place(chance.randbytes(16), chance.choice(pool.gateways), now)
        heapq.heappush(ends, (now + chance.expovariate(1 / CALL_S), slot))
        if number < calls // 2:
            continue
        beyond += pool.held[slot] > load_bound(weights[slot], len(ends) + 1, weight)
        if number % len(weights) == 0:
            seen.append(imbalance((pool.held[slot], weight) for slot, weight in weights.items()))
    return Spread(sum(seen) / len(seen), 100 * beyond / (calls - calls // 2), pool.asked / calls)


def moved(before: Ring, after: Ring, seed: int) -> float:
    """Give the share of keys whose first choice is another one, in percent."""
    chance = random.Random(seed)
    keys = [chance.randbytes(16) for _ in range(KEYS)]
    return 100 * sum(next(before.owners(key)) != next(after.owners(key)) for key in keys) / KEYS


def placed_elsewhere(weights: Mapping[int, int], without: Mapping[int, int], seed: int) -> float:
    """Give the share of calls, in percent, that another owner gets when a pool fills under the bound without a member."""
    owners: list[list[int]] = []
    for members in (weights, without):
        chance, pool = random.Random(seed), Pool(members, bounded=True)
        calls = CALLS_PER_MEMBER * len(weights)
        owners.append([pool.place(chance.randbytes(16), pool.gateways[n % GATEWAYS], 0.0) for n in range(calls)])
    return 100 * sum(a != b for a, b in zip(*owners, strict=True)) / len(owners[0])


def pools(*, quick: bool) -> Iterator[tuple[str, dict[int, int]]]:
    """Give pools by name; the last one is in the middle of a rollout that doubles the capacity."""
    for count in (3, 10, 100) if quick else (3, 10, 100, 1000):
        yield f"{count} members", dict.fromkeys(range(count), WEIGHT)
    yield "100 members, 50 of half the weight", {slot: WEIGHT // (1 + slot % 2) for slot in range(100)}


def main() -> None:
    """Measure, and write bench/results/ring.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds, no pool of 1,000")
    quick = parser.parse_args().quick
    rounds = range(3 if quick else 7)
    report = Report(
        "ring", gateways=GATEWAYS, calls_per_member=CALLS_PER_MEMBER, call_s=CALL_S, bound=LOAD_FACTOR, slack=LOAD_SLACK
    )
    worst = 0.0
    for who, weights in pools(quick=quick):
        calls = max(4_000, 4 * CALLS_PER_MEMBER * len(weights))
        for what, bounded in (("ring alone", False), ("bounded", True)):
            runs = [run(weights, bounded=bounded, seed=seed, calls=calls) for seed in rounds]
            report.row("spread", who, f"highest load over mean, {what}", "", [one.imbalance for one in runs])
            past = report.row("spread", who, f"placed beyond the bound, {what}", "%", [r.beyond_percent for r in runs])
            if bounded:
                worst = max(worst, past)
                report.row("spread", who, "members asked for a call", "", [one.asked for one in runs])
        members = sorted(weights)
        leavers = [members[seed * len(members) // len(rounds)] for seed in rounds]
        rings = [Ring({slot: w for slot, w in weights.items() if slot != leaver}) for leaver in leavers]
        report.row("movement", who, "1/n", "%", [100 / len(members)])
        left = [moved(Ring(weights), ring, seed) for seed, ring in zip(rounds, rings, strict=True)]
        report.row("movement", who, "first choices that one leaver moves", "%", left)
        report.row(
            "movement",
            who,
            "calls that a leaver places elsewhere under the bound",
            "%",
            [
                placed_elsewhere(weights, {slot: w for slot, w in weights.items() if slot != leaver}, seed)
                for seed, leaver in zip(rounds, leavers, strict=True)
            ],
        )
    goal = f"at most 1 % of calls go to a member that holds {LOAD_FACTOR} times its share and {LOAD_SLACK} already"
    report.target("bound", goal, worst, met=worst <= 1.0)
    print(f"{report.write()}: written")


if __name__ == "__main__":
    main()
