"""`make bench-media`: what a call costs by backend, and how soon an answer leaves, beside a Pion program that does the same.

For each backend one server (ours, then Pion's, in turns) carries N calls at 50 packets a second each way. The callers and the agent are
processes of their own, and the same for both: the agent says what it hears. CPU is the server's, user and system, all its threads and
processes; what is left of the machine's cores is theirs to disturb with, so runs alternate.

Latency is from the last packet of what the caller says to the first packet of the answer that comes back, on loopback. An agent
answers the moment that it has heard a given amount of audio, so no voice activity detection is in it. A Pipeline is asked a question and
repeats it: all its stages are in its figures, and the pause that it waits for to know that the caller has finished. Its callers ask the
question again and again, and are silent for as long as the answer takes. No Pion program does that.

    .venv/bin/python -m bench.media --quick
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from bench.media_agent import HEARD_MS, KINDS, serve_agent
from bench.media_callers import HOST, PACKET_S, SpeakingCaller
from bench.media_lines import DELAY_S, lines_ms
from bench.media_servers import Server, free_port, ours, pions, wait_for
from bench.peers import build_go
from bench.report import Report
from tests.support.spoken import SENTENCES, say_with_flite
from voicefleet_dataplane.media.opus import BITRATE, COMPLEXITY, OpusEncoder, version
from voicefleet_dataplane.media.speech import Samples, read_wav

SPEECH = Path("/usr/share/sounds/alsa/Front_Center.wav")
PIONS = ["Echo", "OpusStream", "MediaStream"]
OURS = [*PIONS, "OpenAIRealtime", "Pipeline"]
CALLS = {"Echo": 100, "OpusStream": 60, "MediaStream": 40, "OpenAIRealtime": 40, "Pipeline": 3}
SPEAKS = 0.4  # of a pipeline's call: the rest is the answer's time
_LOUD = 500  # of a sample, where a sentence begins and ends
_COLUMNS = {
    "ms_per_s_and_call": ("CPU a call", "ms/s"),
    "calls_per_core": ("calls a core", ""),
    "kb_per_call": ("memory a call", "KB"),
    "packets_out_per_s_and_call": ("packets out", "1/s"),
}
_kept: list[socket.socket] = []  # a closed socket's port would be given to the next caller, while its call still lives


@dataclass(frozen=True, slots=True)
class Script:
    """What a caller says: Opus packets, again and again; and how many of them are the words of the first question."""

    packets: list[bytes]
    words: int


def packets_of(samples: Samples) -> list[bytes]:
    encoder = OpusEncoder(48_000, bitrate=32_000, dtx=False)
    return [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples) - 960, 960)]


def for_agents() -> Script:
    return Script(packets_of(read_wav(SPEECH)), HEARD_MS // 20)


def for_pipelines() -> Script:
    spoken = say_with_flite(SENTENCES[1])
    loud = np.flatnonzero(np.abs(spoken.astype(int)) > _LOUD)
    words = spoken[loud[0] : loud[-1]]
    silence = np.zeros(int(len(words) * (1 - SPEAKS) / SPEAKS), np.int16)
    return Script(packets_of(np.concatenate([words, silence])), len(words) // 960)


async def connect(server: Server, count: int, packets: list[bytes]) -> list[SpeakingCaller]:
    callers = [SpeakingCaller((HOST, server.udp), packets) for _ in range(count)]
    for caller in callers:
        caller.start(await server.offer(caller.offer()))
        for _ in range(50):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(caller.connected.wait(), 0.2)
                break
            caller.check()
        assert caller.connected.is_set(), "a call did not connect"
    return callers


async def talk(callers: list[SpeakingCaller], seconds: float, offset: int = 0) -> float:
    """Everybody speaks, spread over the 20 ms and over what is said; gives how long it took."""
    loop = asyncio.get_running_loop()
    start, turn = loop.time(), 0
    while loop.time() - start < seconds:
        for index, caller in enumerate(callers):
            caller.say(offset + turn + index * len(caller.packets) // len(callers))
            if index % 10 == 9:
                await asyncio.sleep(max(0.0, start + (turn + index / len(callers)) * PACKET_S - loop.time()))
        turn += 1
        if turn % 125 == 0:
            for caller in callers:
                caller.check()
        await asyncio.sleep(max(0.0, start + turn * PACKET_S - loop.time()))
    return loop.time() - start


async def cost(server: Server, count: int, seconds: float, script: Script) -> dict[str, float]:
    before_kb = server.rss_kb()
    callers = await connect(server, count, script.packets)
    await talk(callers, 1.0)
    received, start = sum(caller.received for caller in callers), server.cpu_s()
    elapsed = await talk(callers, seconds, 50)
    spent, got = server.cpu_s() - start, sum(caller.received for caller in callers) - received
    for caller in callers:
        asyncio.get_running_loop().remove_reader(caller.socket.fileno())
        caller.socket.close()
    per_call = spent / elapsed / count
    return {
        "ms_per_s_and_call": per_call * 1e3,
        "calls_per_core": 1 / per_call,
        "packets_out_per_s_and_call": got / elapsed / count,
        "kb_per_call": (server.rss_kb() - before_kb) / count,
    }


async def latency(server: Server, script: Script) -> float:
    """One caller says the first question, and waits for the answer: milliseconds."""
    (caller,) = await connect(server, 1, script.packets)
    loop = asyncio.get_running_loop()
    start, number = loop.time(), 0
    while not caller.heard.is_set():
        assert loop.time() - start < 30, "no answer"
        if number == script.words - 1:
            caller.listening, said_at = True, time.monotonic()
        caller.say(number)
        number += 1
        await asyncio.sleep(max(0.0, start + number * PACKET_S - loop.time()))
    loop.remove_reader(caller.socket.fileno())
    _kept.append(caller.socket)
    assert caller.first_at is not None
    return (caller.first_at - said_at) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: for development")
    options = parser.parse_args()
    rounds, seconds, answers = (1, 3.0, 3) if options.quick else (3, 8.0, 20)
    scripts = {backend: for_agents() for backend in OURS} | {"Pipeline": for_pipelines()}
    binary, agent_port = build_go("pionmedia"), free_port()
    agent = multiprocessing.get_context("spawn").Process(target=serve_agent, args=(agent_port,), daemon=True)
    agent.start()
    wait_for(agent_port)

    def start(who: str, backend: str, query: str = ""):
        url = f"ws://{HOST}:{agent_port}/{KINDS.get(backend, '')}{query}"
        return ours(backend, url, max(CALLS.values())) if who == "voicefleet" else pions(backend, url, binary)

    places = [("voicefleet", backend) for backend in OURS] + [("Pion", backend) for backend in PIONS]
    costs: dict[tuple[str, str], list[dict[str, float]]] = {place: [] for place in places}
    delays: dict[tuple[str, str], list[float]] = {place: [] for place in places if place[1] != "Echo"}
    peer_opus = ""
    try:
        for number in range(rounds):
            for who, backend in sorted(places, key=lambda place: (OURS.index(place[1]), place[0])):
                with start(who, backend) as server:
                    peer_opus = server.name or peer_opus
                    # A turn of a pipeline's call is six seconds long: a short measurement would see half of one.
                    long = seconds * (3 if backend == "Pipeline" else 1)
                    costs[who, backend].append(uvloop.run(cost(server, CALLS[backend], long, scripts[backend])))
                print(f"round {number + 1} {who} {backend}: {costs[who, backend][-1]}", file=sys.stderr)
        for (who, backend), found in delays.items():
            with start(who, backend, "?answer") as server:
                for _ in range(answers):
                    found.append(uvloop.run(latency(server, scripts[backend])))
            print(f"{who} {backend}: {statistics.median(found):.1f} ms", file=sys.stderr)
        lines = {f"{warm} ready": uvloop.run(lines_ms(warm, answers)) for warm in (0, 1)}
    finally:
        agent.terminate()
        agent.join(5)

    report = Report(
        "media",
        calls=CALLS,
        seconds=seconds,
        rounds=rounds,
        quick=options.quick,
        speech=SPEECH.name,
        pipeline={"speech": "flite's voice", "of the time": SPEAKS, "text": "Repeat"},
        opus={"complexity": COMPLEXITY, "bitrate": BITRATE, "voicefleet": version(), "pion": peer_opus},
        cores_shared_with="callers and agent",
    )
    cpu = {}
    for (who, backend), runs in costs.items():
        for what, (label, unit) in _COLUMNS.items():
            value = report.row("cost", f"{backend}, {who}", label, unit, [run[what] for run in runs])
            if what == "ms_per_s_and_call":
                cpu[who, backend] = value
    for (who, backend), found in delays.items():
        report.row("latency", f"{backend}, {who}", "last word → first packet", "ms", found)
    for who, found in lines.items():
        report.row("lines", who, f"a call → its line to an agent {DELAY_S * 1e3:.0f} ms away, each way", "ms", found)
    ratio = cpu["voicefleet", "OpusStream"] / cpu["voicefleet", "MediaStream"]
    goal = "OpusStream costs at most 0.6 of MediaStream"
    report.target("what needs no coding does not pay for it", goal, ratio, met=ratio <= 0.6)
    for backend in PIONS:
        ratio = cpu["voicefleet", backend] / cpu["Pion", backend]
        report.target(f"{backend}: CPU a call beside Pion", "at most Pion's", ratio, met=ratio <= 1)
    print(report.write())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", ".")
    main()
