"""`make bench-relay`: what a relay costs and adds, ours beside the kernel's forwarding, coturn and a Go relay.

Every round takes each way in turn, so that what else the machine does falls on all alike. Load and echo share core 0, what
is measured has core 1. Rates are far below what a big machine does: two cores carry the callers and the owners too, so CPU
per packet is the result, not the most packets per second.

    make bench-relay                 everything, about a quarter of an hour and 2 GiB of memory
    make bench-relay ARGS=--quick    one round of each, four minutes; its numbers are for development
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.netns import Namespaces
from bench.peers import build_go, build_load
from bench.relay_floods import floods
from bench.relay_load import Flows, Sample, cpu_ns
from bench.relay_ours import (
    CachedRelay,
    Clsact,
    OurRelay,
    SecondCachedRelay,
    SecondRelay,
    Tcx,
    XdpGeneric,
    XdpNative,
    unmount,
)
from bench.relay_paths import Coturn, Forwarding, GoRelay, GoRelayUnlocked, Way
from bench.report import Report
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.fastpath.kernel import OBJECT

WAYS: tuple[type[Way], ...] = (
    Way,
    Forwarding,
    Tcx,
    Clsact,
    XdpNative,
    XdpGeneric,
    OurRelay,
    Coturn,
    GoRelay,
    GoRelayUnlocked,
)
# Many flows, and latency under load, where it tells something new.
COMPARED: tuple[type[Way], ...] = (Tcx, OurRelay, Coturn, GoRelay, GoRelayUnlocked)
WITH_MANY_FLOWS: tuple[type[Way], ...] = (Way, Forwarding, *COMPARED)
MANY_ROUNDS = 3
PPS_EACH_WAY = 5_000
FLOWS = (64, 10_000)
LOADS = (0.1, 0.5, 0.9)
_ALONE, _WHOLE = "relay alone", "CPU per delivered packet, whole path"
_CALLS, _LOST = 10, "lost in a call, each way"
_DROPPED = "of a call, by the new process for want of its flow"
_INAUDIBLE = [f"{Tcx.name}: {what}" for what in ("nothing", "SIGKILL", "restart")]
_FIRST_PPS, _MOST_PPS = 4_000, 40_000


@contextlib.contextmanager
def reported(report: Report, what: str) -> Iterator[None]:
    """Go on without what cannot be measured, and say so in the report: a peer that cannot do it is not left out in silence."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        _say(f"{what}: {error}")
        report.conditions.setdefault("could_not", []).append(f"{what}: {error}")


def rounds(namespaces: Namespaces, report: Report, count: int, seconds: float) -> None:
    """CPU per packet at one rate, few flows and many; and what a flow costs to make and to hold."""
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    bytes_per_flow, setup_us = defaultdict(list), defaultdict(list)
    for number in range(count):
        for kind in WAYS:
            way = kind(namespaces)
            many_too = kind in WITH_MANY_FLOWS and number < MANY_ROUNDS
            for flows in FLOWS if many_too else FLOWS[:1]:
                with reported(report, f"{way.name}, {flows} flows"), contextlib.ExitStack() as stack:
                    stack.callback(way.stop)
                    way.start()
                    before_kb, before_ns = _resident_kb(way), sum(map(cpu_ns, way.pids()))
                    many = Flows(way, flows)
                    if way.pids() and flows == max(FLOWS):
                        bytes_per_flow[way.name].append((_resident_kb(way) - before_kb) * 1024 / flows)
                        setup_us[way.name].append((sum(map(cpu_ns, way.pids())) - before_ns) / 1e3 / flows)
                    samples[way.name, flows].append(many.measure(PPS_EACH_WAY, seconds))
                    many.close()
        _say(f"round {number + 1} of {count}")
    for (who, flows), runs in samples.items():
        table = "cpu" if flows == min(FLOWS) else "cpu, many flows"
        report.row(table, who, _WHOLE, "µs", [run.cpu_us_whole for run in runs])
        report.row(table, who, _ALONE, "µs", [run.cpu_us_relay for run in runs])
        report.row(table, who, "lost", "%", [100 * run.lost for run in runs])
    for who, runs in bytes_per_flow.items():
        report.row("flows", who, "resident bytes per flow", "B", runs)
        report.row("flows", who, "set-ups per second and core", "/s", [1e6 / us for us in setup_us[who]])


def flow_table(report: Report, flows: int) -> None:
    """Our table alone and beside a kernel path, in a process of its own, filled to a size."""
    for who, options in (
        (f"table of {flows:,} flows", ()),
        (f"table of {flows:,} flows and kernel path", ("--kernel",)),
    ):
        command = [sys.executable, "-m", "bench.flow_table", "--flows", str(flows), *options]
        said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        for key, what, unit in (
            ("bytes_per_flow", "resident bytes per flow", "B"),
            ("kernel_bytes_per_flow", "kernel's bytes per flow", "B"),
            ("setups_per_s", "set-ups per second and core", "/s"),
            ("full_collection_ms", "full garbage collection, which never runs", "ms"),
            ("sweep_ms", "a sweep over all rules, CPU", "ms"),
        ):
            if key in said:
                report.row("table", who, what, unit, [said[key]])
        _say(f"{who}: {said}")


def capacity_and_latency(namespaces: Namespaces, report: Report, seconds: float) -> None:
    """The rate at which each way begins to lose, and latency at shares of it beside the direct way at the same rate."""
    for kind in COMPARED:
        way, direct = kind(namespaces), Way(namespaces)
        with reported(report, f"{way.name}, latency"), contextlib.ExitStack() as stack:
            stack.callback(way.stop)
            way.start()
            through, beside = Flows(way, min(FLOWS)), Flows(direct, min(FLOWS))
            most, busy, limit = _capacity(through)
            report.row("latency", way.name, "most packets delivered", "/s", [2 * most])
            report.row("latency", way.name, "relay's core busy then", "%", [100 * busy])
            report.row(
                "latency", way.name, "packets that a whole core would do", "/s", [2 * most / busy if busy else 0.0]
            )
            report.conditions.setdefault("limited_by", {})[way.name] = limit
            for load in LOADS:
                sample, base = through.measure(most * load, seconds), beside.measure(most * load, seconds)
                for name, value in (("p50", sample.p50_us - base.p50_us), ("p99", sample.p99_us - base.p99_us)):
                    report.row("latency", way.name, f"added {name} at {load:.0%}", "µs", [value])
            through.close()
            beside.close()
            _say(f"{way.name}: {2 * most:.0f} packets/s, limited by {limit}")


def _capacity(flows: Flows) -> tuple[float, float, str]:
    pps, best, busy = _FIRST_PPS, 0.0, 0.0
    while pps <= _MOST_PPS:
        sample = flows.measure(pps, 0.5)
        if sample.sent < 0.9 * 2 * pps * 0.5 and sample.lost < 0.005:
            return best or pps, busy, "the load generator"
        if sample.lost > 0.005:
            return best or pps, busy, "the relay" if sample.relay_busy > 0.85 else "the machine's two cores"
        best, busy, pps = float(pps), sample.relay_busy, int(pps * 1.25)
    return best, busy, "the load generator"


def interruptions(namespaces: Namespaces, report: Report, *, quick: bool) -> None:
    """Packets that ten calls lose when their relay is killed, restarted, or exchanged for another one."""
    for kind, other in ((OurRelay, SecondRelay), (CachedRelay, SecondCachedRelay), (Tcx, SecondRelay)):
        for what in ("nothing", "SIGKILL", "restart", "move"):
            way, second = kind(namespaces), other(namespaces)
            who = f"{way.name}: {what}"
            with reported(report, who), contextlib.ExitStack() as stack:
                stack.callback(namespaces.move, to_second=False)
                stack.callback(way.stop)
                stack.callback(second.stop)
                way.start()
                if what == "move":
                    second.start()
                calls = Flows(way, _CALLS)
                if isinstance(way, CachedRelay):
                    _wait_for_the_cache(way)
                lost, away_ms = _interrupted(calls, way, what, seconds=5.0 if quick else 8.0)
                dropped = _dropped(second if what == "move" else way) / _CALLS
                calls.close()
                report.row("interruptions", who, _LOST, "packets", [lost])
                report.row("interruptions", who, _DROPPED, "packets", [dropped])
                report.row("interruptions", who, "no process there for", "ms", [away_ms])
                _say(
                    f"{who}: {lost:.1f} packets lost in a call, each way; {dropped:.1f} dropped; away for {away_ms:.0f} ms"
                )


def _wait_for_the_cache(way: CachedRelay) -> None:
    give_up_at = time.monotonic() + 10
    while way.samples()["voicefleet_relay_cache_records_total"] < _CALLS:
        if time.monotonic() > give_up_at:
            raise RuntimeError("the flows were not written to the cache")
        time.sleep(0.05)


def _dropped(relay: OurRelay) -> float:
    """What the process that has the calls now dropped because it did not know them; it began with zero."""
    reasons = (DropReason.FLOW_UNKNOWN, DropReason.FLOW_LOOKUP_PENDING, DropReason.FLOW_LOOKUP_LIMIT)
    samples = relay.samples()
    return sum(samples[f'voicefleet_relay_drops_total{{reason="{reason.value}"}}'] for reason in reasons)


def _interrupted(calls: Flows, way: OurRelay, what: str, seconds: float) -> tuple[float, float]:
    away_ms = 0.0
    calls.restart_echo()
    with calls.sending(_CALLS * 50, seconds, 0.5, check_s=2.5) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begin\n"
        time.sleep(1.0)
        if what == "move":
            way.namespaces.move(to_second=True)
        elif what != "nothing":
            old = way.processes.pop()
            old.send_signal(signal.SIGKILL if what == "SIGKILL" else signal.SIGTERM)
            old.wait()
            began = time.monotonic()
            way.launch()
            away_ms = (time.monotonic() - began) * 1e3
        assert client.stdout.readline() == "end\n"
        outward = json.loads(client.stdout.readline())
    inward = calls.echo_result()
    lost = outward["sent"] - inward["received"] + inward["sent"] - outward["received"]
    return max(0, lost) / 2 / _CALLS, away_ms


def compare(report: Report) -> None:
    """The goals of the relay, as far as their ways were measured."""
    rows = {(row["table"], row["who"], row["what"]): row for row in report.rows}
    missing = [way.name for way in (Way, *COMPARED) if ("cpu", way.name, _WHOLE) not in rows]
    if missing:
        report.conditions["not_compared"] = f"not measured: {', '.join(missing)}"
    else:
        _compare_cpu(report, rows)
    for row in report.rows:
        if (row["table"], row["what"]) == ("floods", "lost by the calls") and ": 10 times" in row["who"]:
            report.target(
                f"flood, {row['who']}, lost by the calls in %", "under 0.1", row["value"], met=row["value"] < 0.1
            )
        if (row["table"], row["what"]) == ("floods", "bytes that the strangers got"):
            report.target(
                f"flood, {row['who']}, bytes back", "no more than were sent", row["value"], met=row["value"] == 0
            )
        if (row["table"], row["what"]) == ("interruptions", _LOST) and row["who"] in _INAUDIBLE:
            report.target(
                f"{row['who']}, lost in a call", "at most 3 packets each way", row["value"], met=row["value"] <= 3
            )


def _compare_cpu(report: Report, rows: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    def of(who: str, what: str) -> float:
        return float(rows["cpu", who, what]["value"])

    go = min((GoRelay.name, GoRelayUnlocked.name), key=lambda who: of(who, _ALONE))
    ratio = of(OurRelay.name, _ALONE) / of(go, _ALONE)
    report.target("user space, relay alone", f"at most 1.3 × the better Go relay ({go})", ratio, met=ratio <= 1.3)
    for peer in (Coturn.name, go):
        share = of(Tcx.name, _ALONE) / of(peer, _ALONE)
        report.target(f"{Tcx.name}, relay alone", f"at most 1/10 of {peer}", share, met=share <= 0.1)
        added = of(Tcx.name, _WHOLE) - of(Way.name, _WHOLE)
        share = added / (of(peer, _WHOLE) - of(Way.name, _WHOLE))
        ours, theirs = (rows["cpu", who, _WHOLE] for who in (Tcx.name, peer))
        apart = "interval" in ours and ours["interval"][1] < theirs["interval"][0]
        goal = f"at most 1/5 of {peer}, intervals apart"
        report.target(f"{Tcx.name}, added to the whole path", goal, share, met=share <= 0.2 and apart)


def _resident_kb(way: Way) -> int:
    total = 0
    for pid in way.pids():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run, write bench/results/relay.json, and say what was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave as at Ctrl-C: nothing stays behind
    if not OBJECT.is_file():  # or every kernel mode would be written down as refused
        sys.exit(f"error: {OBJECT.name} is not compiled: make bpf")
    build_load()
    build_go("gorelay")
    count, seconds = (1, 0.5) if options.quick else (5, 0.8)
    report = Report(
        "relay",
        payload_bytes=172,
        pps_each_way=PPS_EACH_WAY,
        rounds=count,
        seconds_each=seconds,
        quick=options.quick,
        cores="callers and owners on 0, the relay on 1",
        load="bench/peers/load.c",
        checks="one for 125 packets of a flow, as browsers send them",
        setups="a set-up of ours authenticates; Go's does not; coturn's is an allocation and a channel",
        bytes="resident; a kernel path's maps are not in it",
        xdp="native XDP on veth: the peers' GRO on, their checksum offload off",
    )
    with contextlib.ExitStack() as stack:
        stack.callback(unmount)
        namespaces = stack.enter_context(Namespaces())
        rounds(namespaces, report, count, seconds)
        capacity_and_latency(namespaces, report, seconds)
        interruptions(namespaces, report, quick=options.quick)
        with reported(report, "floods"):
            floods(namespaces, report, 1.0 if options.quick else 3.0)
    flow_table(report, 20_000 if options.quick else 1_000_000)
    compare(report)
    for target in report.targets:
        _say(f"{'met    ' if target['met'] else 'NOT MET'} {target['name']}: {target['target']}: {target['value']}")
    _say(f"written: {report.write()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing written, nothing left behind")
