"""`make bench-sessions`: what listing and keeping a million sessions costs, over a real Redis on this machine.

Synthetic sessions are written with the commands that transceivers write, and read through the sessions API's own code, up to
the bytes of the answer. Redis, the writers and the reader share the machine's cores.
"""

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import Report
from tests.support.redis_server import HOST, running_redis
from tests.support.session_records import CLUSTER, NODES, PER_SLOT, RELAYS, heartbeat, sessions_of, write_sessions
from voicefleet_contract.registry import HEARTBEAT_INTERVAL_S
from voicefleet_contract.sessions import (
    INDEXED,
    Command,
    keep_commands,
    write_commands,
)
from voicefleet_operator.cluster.redis_client import connect
from voicefleet_operator.sessions_api.lists import list_sessions, negotiate
from voicefleet_operator.sessions_api.registry import SessionRegistry
from voicefleet_operator.sessions_api.selectors import parse_query

REFRESH_S = 20.0
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def one_list(registry: SessionRegistry, parameters: Mapping[str, str]) -> int:
    """One answer's bytes, as kubectl asks for it."""
    query = parse_query("", parameters.get("fieldSelector", ""), "voice")
    view = negotiate(_TABLE, "voice", "")
    return sum([len(part) async for part in await list_sessions(registry, query, view, parameters)])


async def timed(registry: SessionRegistry, parameters: Mapping[str, str], times: int) -> tuple[list[float], float]:
    """(milliseconds of each answer, CPU milliseconds of this process for each)."""
    await one_list(registry, parameters)
    took, began = [], cpu_s()
    for _ in range(times):
        at = time.perf_counter()
        await one_list(registry, parameters)
        took.append((time.perf_counter() - at) * 1e3)
    return took, (cpu_s() - began) * 1e3 / times


def cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def heartbeats(client: Any, port: int, slots: int, seconds: float) -> tuple[float, float]:
    """Owners' ticks that Redis takes in a second, and Redis' CPU seconds for each: every tick keeps the sets alive, writes the
    heartbeat and refreshes the sessions that are due. The bytes are made before: what is measured is Redis, not the writer.
    """
    due = round(PER_SLOT * HEARTBEAT_INTERVAL_S / REFRESH_S)
    prepared = []
    for slot in range(min(slots, 64)):
        records = sessions_of(slot)
        sets = sorted({(field, getattr(record, field)) for record in records for field in INDEXED})
        refreshed = [(record, record) for record in records[:due]]
        tick = [
            heartbeat(CLUSTER, slot, records),
            *write_commands(CLUSTER, slot, 0, refreshed),
            *keep_commands(CLUSTER, slot, 0, sets, time.time()),
        ]
        prepared.append(b"".join(map(encoded, tick)))
    reader, writer = await asyncio.open_connection(HOST, port)
    before, began, ticks = await redis_cpu_s(client), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(8):
            writer.write(prepared[ticks % len(prepared)])
            ticks += 1
        writer.write(encoded(("ECHO", f"tick {ticks}")))
        await reader.readuntil(f"tick {ticks}\r\n".encode())
    elapsed = time.perf_counter() - began
    writer.close()
    return ticks / elapsed, (await redis_cpu_s(client) - before) / ticks


def encoded(command: Command) -> bytes:
    """A command as Redis reads it (RESP)."""
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


async def redis_cpu_s(client: Any) -> float:
    """CPU seconds of Redis."""
    info = await client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them is."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(sessions: int, rounds: int, times: int) -> Path:
    """Fill, measure, write the report."""
    slots = max(1, sessions // PER_SLOT)
    report = Report("sessions", sessions=slots * PER_SLOT, transceivers=slots, relays=RELAYS, nodes=NODES, page=500)
    async with running_redis() as server:
        client = connect(server.url, "", timeout_s=30)
        empty = (await client.info("memory"))["used_memory"]
        await write_sessions(client, CLUSTER, slots, say=print)
        used = (await client.info("memory"))["used_memory"] - empty
        report.row("memory", "Redis", "memory of a session", "bytes", [used / (slots * PER_SLOT)])
        registry = SessionRegistry(client, CLUSTER)
        first: list[list[float]] = []
        node: list[list[float]] = []
        for who, fields in (
            ("a page of all", ""),
            ("a page of one relay's", "relay=relay-7"),
            ("a page of those connecting", "state=connecting"),
            ("a page of one relay's connecting", "relay=relay-7,state=connecting"),
            ("one node's sessions, all of them", "node=node-7"),
        ):
            limit = {} if fields.startswith("node=") else {"limit": "500"}
            results = [await timed(registry, {"fieldSelector": fields, **limit}, times) for _ in range(rounds)]
            took = [one for one, _ in results]
            first = first or took
            node = took
            report.row("lists", who, "p50", "ms", [statistics.median(one) for one in took])
            report.row("lists", who, "p99", "ms", [percentile(one, 0.99) for one in took])
            report.row("lists", who, "API server CPU", "ms", [cpu for _, cpu in results])
        ticks = [await heartbeats(client, server.port, slots, 3.0) for _ in range(rounds)]
        rate = report.row("heartbeats", "Redis", "heartbeats sustained", "1/s", [one for one, _ in ticks])
        needed = slots / HEARTBEAT_INTERVAL_S
        busy = [100 * cpu * needed for _, cpu in ticks]
        report.row("heartbeats", "Redis", "needed by these sessions", "1/s", [needed])
        report.row("heartbeats", "Redis", "of a core, at that rate", "%", busy)
        await client.aclose()
    p99 = max(percentile(one, 0.99) for one in first)
    report.target("a page of 500", "well under a second (p99 under 250 ms)", p99, met=p99 < 250)
    report.target("one node's sessions", "p99 under 1 s", max(map(max, node)), met=max(map(max, node)) < 1000)
    report.target("heartbeats", f"all {slots:,} transceivers'", rate, met=rate >= needed)
    return report.write()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 sessions and few rounds: to see that it works")
    options = parser.parse_args()
    quick = options.quick
    sessions, rounds, times = (20_000, 2, 10) if quick else (options.sessions, 5, 40)
    print(asyncio.run(measure(sessions, rounds, times)).read_text())


if __name__ == "__main__":
    main()
