"""Whether native XDP is worth using here: TC and XDP in turns, under the calls' own packets, until one is seen to be
cheaper.

Both hang on the interfaces. A switch in the programs' control map says whether XDP forwards or passes on to TC, so
turns change between two packets and cost none. What is compared is the time that the node's CPUs spend in soft
interrupts for each packet that the relay's programs sent on: the driver's work, which is where XDP saves something,
is in it. So is whatever else the node receives, which is why one comparison says little, and why turns go TC, XDP,
XDP, TC: what grows or falls steadily falls on both alike.

::

    windows     TC │ XDP │ XDP │ TC      one comparison: log(XDP's time a packet / TC's)
                 `── a window is WINDOW_S ──▶ the mean of many, and how sure it is

TC is used until XDP has been seen to be better by MARGIN, and when it has not been after MOST comparisons. A relay
with too few packets goes on comparing; the difference is none that anybody would notice then.

Owns: turns, comparing, the verdict. Pure: counts and times are arguments. Does not own: the switch, reading clocks
(kernel.py).
"""

import math
import statistics
from typing import NamedTuple

WINDOW_S = 2.0
PACKETS = 4_000  # in each half of a comparison, at least: a thousand a second
LEAST, MOST = 10, 300  # comparisons
SURE = 4.0  # standard errors: the mean is looked at again and again, so two would often be chance
MARGIN = 0.05
_XDP_S_TURN = (False, True, True, False)


class Verdict(NamedTuple):
    """What was found. Times in µs a packet."""

    use_xdp: bool
    xdp_us: float
    tc_us: float
    comparisons: int

    def __str__(self) -> str:
        xdp, tc = f"{self.xdp_us:.2f}", f"{self.tc_us:.2f}"
        what = "is used" if self.use_xdp else "is not used"
        return f"native XDP {what}: {xdp} µs of interrupt time a packet, TC {tc}, in {self.comparisons} comparisons"


class Trial:
    """Give it counts that only grow, a few times a window."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self._turn = 0
        self._began: tuple[float, int, int] | None = None
        self._halves = {False: [0, 0], True: [0, 0]}  # packets and ns in this comparison
        self._all = {False: [0, 0], True: [0, 0]}
        self._logs: list[float] = []

    @property
    def use_xdp(self) -> bool:
        """Say whether XDP forwards now."""
        return self.verdict.use_xdp if self.verdict is not None else _XDP_S_TURN[self._turn]

    def look(self, now: float, packets: int, interrupts_ns: int) -> None:
        """Note how many packets were sent on so far, and how long the node has been in soft interrupts."""
        if self.verdict is not None:
            return
        if self._began is None:
            self._began = now, packets, interrupts_ns
        began, packets_then, ns_then = self._began
        if now - began < WINDOW_S:
            return
        half = self._halves[self.use_xdp]
        half[0] += packets - packets_then
        half[1] += interrupts_ns - ns_then
        self._began = now, packets, interrupts_ns
        self._turn = (self._turn + 1) % len(_XDP_S_TURN)
        if self._turn == 0:
            self._compare()

    def _compare(self) -> None:
        halves, self._halves = self._halves, {False: [0, 0], True: [0, 0]}
        if any(packets < PACKETS or ns <= 0 for packets, ns in halves.values()):
            return
        for one, (packets, ns) in halves.items():
            self._all[one][0] += packets
            self._all[one][1] += ns
        self._logs.append(math.log(_cost(halves[True]) / _cost(halves[False])))
        count = len(self._logs)
        if count < LEAST:
            return
        mean, error = statistics.fmean(self._logs), statistics.stdev(self._logs) / math.sqrt(count)
        better = mean < -MARGIN and mean + SURE * error < 0
        if better or mean - SURE * error > -MARGIN or count >= MOST:
            self.verdict = Verdict(better, _cost(self._all[True]) / 1e3, _cost(self._all[False]) / 1e3, count)


def _cost(half: list[int]) -> float:
    packets, ns = half
    return ns / packets
