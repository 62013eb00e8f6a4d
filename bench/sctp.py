"""`make bench-sctp`: our SCTP beside aiortc's and Pion's, and what packets cost that nobody sends who means well.

*Echo*: a process says back each message that a client of ours sends it, over UDP on loopback, without DTLS. The ends take turns. CPU is
that process's, user and system. A client has a megabyte under way at most. What a call is given at most, in steps and in messages, is not in
force: it is much less than an end can do.

*Attacks*: the same packets for our end and for aiortc's, in this process: CPU of the dearest one. Both hold what `WAITING` says.

*Worst*: a search climbs to the packet that takes most steps from an end that keeps N, 2N and 4N things; its steps must not grow with N.

*Steps*: CPU for each counted step (core/call/sctp/meter.py), by what a packet does. A call's share of steps a second stands for the
share of a core that the dearest kind gives.

    .venv/bin/python -m bench.sctp --quick
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.peers import build_go
from bench.report import Report
from bench.sctp_attacks import ATTACKS, SEARCHED, WAITING, aiortc_cost_ms, our_cost_ms, step_cost_ns, worst_found
from bench.sctp_ends import HOST, STREAM, OurEnd, udp_socket
from bench.transceiver_load import cpu_s
from voicefleet_dataplane.core.call.sctp.channels import DataChannel, Outcome
from voicefleet_dataplane.core.call.sctp.dcep import Terms
from voicefleet_dataplane.core.call.sctp.meter import STEPS_PER_S

UNDER_WAY_BYTES = 1 << 20
ENDS = ("voicefleet", "aiortc", "Pion")
_OURS = [sys.executable, "-m", "bench.sctp_ends"]


@dataclass(frozen=True, slots=True)
class Load:
    """So many messages of one size; ``at_once`` are under way at most."""

    name: str
    count: int
    size: int

    @property
    def at_once(self) -> int:
        return max(2, min(64, UNDER_WAY_BYTES // self.size))


LOADS = (Load("200 bytes", 10_000, 200), Load("60 KB", 150, 60_000), Load("256 KB", 40, 262_144))


@contextlib.contextmanager
def serving(argv: list[str]) -> Iterator[tuple[int, int]]:
    """A process that says back: its pid and its port."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(json.loads(process.stdout.readline())["udp"])
        finally:
            process.kill()


def echo(argv: list[str], load: Load) -> dict[str, float]:
    """Milliseconds of the server's CPU for each message, and megabytes a second each way."""
    said: list[int] = []
    with serving(argv) as (pid, port):
        sock = udp_socket()
        sock.connect((HOST, port))
        client = OurEnd(sock, lambda _, message: said.append(len(message)))
        client.channels._hold_bytes = 1 << 60  # as browsers do it takes what comes
        channel = client.channels._channels[STREAM] = DataChannel(STREAM, Terms())
        while not client.channels.is_up:
            client.turn()
        message, sent = b"\x5a" * load.size, 0

        def exchange(count: int) -> None:
            nonlocal sent
            goal = sent + count
            give_up = time.monotonic() + 120
            while len(said) < goal:
                while sent < goal and sent - len(said) < load.at_once:
                    outcome = client.channels.send(channel, message, time.monotonic())
                    if outcome is not Outcome.QUEUED:
                        break
                    sent += 1
                client.go_on()
                client.turn()
                assert time.monotonic() < give_up, f"{len(said)} of {goal} messages came back"

        exchange(load.at_once)
        before_s, began = cpu_s(pid), time.monotonic()
        exchange(load.count)
        took_s, spent_s = time.monotonic() - began, cpu_s(pid) - before_s
        sock.close()
    assert set(said) == {load.size}
    return {"cpu_ms": spent_s / load.count * 1e3, "mb_per_s": load.count * load.size / took_s / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round: for development")
    options = parser.parse_args()
    rounds = 1 if options.quick else 5
    argv = {"voicefleet": [*_OURS, "ours"], "aiortc": [*_OURS, "aiortc"], "Pion": [str(build_go("pionsctp"))]}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for load in LOADS:
            for end in ENDS:
                found.setdefault((load.name, end), []).append(echo(argv[end], load))
                print(f"round {number + 1} {load.name} {end}: {found[load.name, end][-1]}", file=sys.stderr)
    report = Report("sctp", rounds=rounds, quick=options.quick, under_way_bytes=UNDER_WAY_BYTES, waiting=WAITING)
    values: dict[tuple[str, str, str], float] = {}
    for (load_name, end), runs in found.items():
        for what, label, unit in (("cpu_ms", "CPU a message", "ms"), ("mb_per_s", "each way", "MB/s")):
            row = report.row("echo", f"{load_name}, {end}", label, unit, [run[what] for run in runs])
            values[load_name, end, what] = row
    for load in LOADS:
        for other in ("aiortc", "Pion"):
            ratio = values[load.name, "voicefleet", "cpu_ms"] / values[load.name, other, "cpu_ms"]
            report.target(f"{load.name}: CPU a message beside {other}", f"at most {other}'s", ratio, met=ratio <= 1)
        ratio = values[load.name, "voicefleet", "mb_per_s"] / values[load.name, "aiortc", "mb_per_s"]
        report.target(f"{load.name}: throughput beside aiortc", "at least aiortc's", ratio, met=ratio >= 1)
    for attack in ATTACKS:
        report.row("attacks", attack, "voicefleet", "ms", [our_cost_ms(attack) for _ in range(rounds)])
        report.row("attacks", attack, "aiortc", "ms", [aiortc_cost_ms(attack) for _ in range(min(rounds, 3))])
    for size in SEARCHED:
        steps, spent_ms, kinds = worst_found(size)
        who = f"{size} of both wait: {kinds}"
        report.row("worst", who, "steps", "", [steps])
        report.row("worst", who, "CPU", "ms", [spent_ms])
    dearest = 0.0
    for what, samples in step_cost_ns(rounds).items():
        dearest = max(dearest, report.row("steps", what, "CPU a step", "ns", samples))
    share = dearest * 1e-9 * STEPS_PER_S
    report.target("a call's share of a core, at the dearest step", "at most a half", share, met=share <= 0.5)
    print(report.write())


if __name__ == "__main__":
    main()
