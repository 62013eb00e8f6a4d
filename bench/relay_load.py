"""One measurement of bench/relay.py: load through a path, and whose CPU it took.

CPU is counted by the scheduler's own clock (/proc/PID/schedstat, nanoseconds) over every process that touches the packets,
and the kernel's soft-interrupt threads: unlike /proc/stat it is exact at short runs, and another program on the machine
does not count. The kernel runs a packet's whole way on a veth in the context of whoever sent it, so nothing is missed; the
price is that "the relay alone" holds the delivery to the next socket, as for any user-space relay.
"""

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import built
from bench.relay_dial import open_sockets
from bench.relay_paths import OWNER_PORT, Way

LOAD_CPU = "0"
PACKETS_PER_CHECK = 125  # fifty packets a second, a check each 2.5 s


@dataclass
class Sample:
    """What one window gave. Both directions together; latency is one way."""

    sent: int
    delivered: int
    cpu_us_whole: float  # per delivered packet
    cpu_us_relay: float
    p50_us: float
    p99_us: float
    relay_busy: float  # share of one core

    @property
    def lost(self) -> float:
        return 1 - self.delivered / self.sent if self.sent else 1.0


class Flows:
    """A path with an echo behind it and flows through it."""

    def __init__(self, path: Way, count: int) -> None:
        self.path, self.count = path, count
        self._echo = _Echo(path)
        try:
            self.sockets = open_sockets(path.namespaces, path.client_host, path.destination, count)
            started = time.monotonic()
            self.checks = path.dial(self.sockets)
            self.dialled_s = time.monotonic() - started
        except BaseException:
            self._echo.kill()
            raise

    def close(self) -> None:
        self._echo.kill()
        for one in self.sockets:
            one.close()

    def measure(self, pps: float, seconds: float, warmup_s: float = 0.3, check_s: float = 0.0) -> Sample:
        """Send ``pps`` in each direction, and as many checks beside it as browsers do."""
        self.restart_echo()
        check_s = check_s or self.count * PACKETS_PER_CHECK / pps
        with self.sending(pps, seconds, warmup_s, check_s) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "begin\n", "the load generator failed"
            before, relay_before, programs_before = self._cpu(client), self._relay_cpu(), self.path.programs_ns()
            assert client.stdout.readline() == "end\n"
            after, relay_after, programs_after = self._cpu(client), self._relay_cpu(), self.path.programs_ns()
            outward = json.loads(client.stdout.readline())
        inward = self.echo_result()
        delivered = inward["received"] + outward["received"]
        relay_ns = relay_after - relay_before
        relay_ns += programs_after - programs_before
        histogram = inward["histogram"] + outward["histogram"]
        return Sample(
            sent=outward["sent"] + inward["received"],
            delivered=delivered,
            cpu_us_whole=(after - before) / 1e3 / max(1, delivered),
            cpu_us_relay=relay_ns / 1e3 / max(1, delivered),
            p50_us=quantile_us(histogram, 0.5),
            p99_us=quantile_us(histogram, 0.99),
            relay_busy=relay_ns / 1e9 / seconds,
        )

    def restart_echo(self) -> None:
        """Have a far end that has counted nothing yet."""
        self._echo.restart()

    def echo_result(self) -> Any:
        """What the far end counted; it is gone then."""
        return self._echo.result()

    def sending(
        self, pps: float, seconds: float, warmup_s: float, check_s: float
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Run the client program over our sockets."""
        rechecked = bool(self.checks) and self.path.rechecked
        return sending(
            self.sockets,
            self.checks if rechecked else [],
            pps=pps,
            seconds=seconds,
            warmup_s=warmup_s,
            check_s=check_s if rechecked else 0,
            prefix_bytes=self.path.prefix_bytes,
        )

    def _cpu(self, client: subprocess.Popen[str]) -> int:
        return cpu_ns(client.pid) + cpu_ns(self._echo.process.pid) + self._relay_cpu() + soft_interrupts_ns()

    def _relay_cpu(self) -> int:
        return sum(cpu_ns(pid) for pid in self.path.pids())


@contextlib.contextmanager
def sending(
    sockets: list[socket.socket],
    checks: list[bytes],
    *,
    pps: float,
    seconds: float,
    warmup_s: float,
    check_s: float,
    prefix_bytes: int = 0,
) -> Iterator[subprocess.Popen[str]]:
    """Run the client program over these sockets: ``pps`` in all, and each one's check every ``check_s``."""
    descriptors = [one.fileno() for one in sockets]
    lines = (
        f"{descriptor} {len(check)} {check.hex()}" if check else f"{descriptor} 0"
        for descriptor, check in zip(descriptors, checks or [b""] * len(sockets), strict=True)
    )
    numbers = (len(sockets), pps, warmup_s, seconds, prefix_bytes, check_s)
    client = subprocess.Popen(
        ["taskset", "-c", LOAD_CPU, str(built() / "load"), "client", *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=descriptors,
    )
    try:
        assert client.stdin is not None
        client.stdin.write("\n".join(lines) + "\n")
        client.stdin.flush()
        yield client
    finally:
        client.kill()
        client.wait()


class _Echo:
    """The far end; a process for each measurement, because it reports when it ends."""

    def __init__(self, path: Way) -> None:
        self._command = path.namespaces.command(
            path.namespaces.owner,
            *("taskset", "-c", LOAD_CPU, str(built() / "load"), "echo", path.owner_host, str(OWNER_PORT)),
        )
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the echo did not start"

    def restart(self) -> None:
        self.kill()
        self._start()

    def result(self) -> Any:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, by the scheduler."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def soft_interrupts_ns() -> int:
    """CPU time of ksoftirqd: packets that the kernel did not finish in their sender's context."""
    return sum(cpu_ns(pid) for pid in _SOFT_INTERRUPT_PIDS)


def _soft_interrupt_pids() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("ksoftirqd/"):
                found.append(int(entry.name))
    return found


_SOFT_INTERRUPT_PIDS = _soft_interrupt_pids()


def quantile_us(histogram: list[list[float]], quantile: float) -> float:
    """A quantile of (nanoseconds, count) pairs."""
    pairs = sorted(histogram)
    wanted = quantile * sum(count for _, count in pairs)
    seen = 0.0
    for value, count in pairs:
        seen += count
        if seen >= wanted:
            return value / 1e3
    return 0.0
