"""`make bench-media`: what a call costs by backend, and how soon an agent's answer leaves, beside a Pion program that does the same.

For each backend one server process (ours, then Pion's, in turns) carries N calls of recorded speech at 50 packets a second each way. The
callers and the agent are processes of their own, and the same for both: the agent says what it hears. CPU is the server process's,
user and system, all threads; what is left of the machine's cores is theirs to disturb with, so runs alternate.

Latency is from the last packet of what the caller says to the first packet of the answer that comes back, on loopback: the agent
answers the moment that it has heard a given amount of audio, so no voice activity detection is in it.

    .venv/bin/python -m bench.media --quick
"""

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from aiohttp import WSMsgType, web

from bench.media_callers import HOST, PACKET_S, SpeakingCaller
from bench.peers import build_go
from bench.report import Report
from bench.transceiver_load import cpu_s, rss_kb, serve
from voicefleet_contract.http_api import CreateSession, SessionCreated
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.opus import BITRATE, COMPLEXITY, OpusEncoder, version
from voicefleet_dataplane.media.opus_stream import HEADER, SUBPROTOCOL
from voicefleet_dataplane.media.speech import read_wav

SPEECH = Path("/usr/share/sounds/alsa/Front_Center.wav")
OURS = ["Echo", "OpusStream", "MediaStream", "OpenAIRealtime"]
PIONS = ["Echo", "OpusStream", "MediaStream"]
HEARD_MS = 1_000  # what the agent waits for before it answers, when latency is measured
ANSWER_MS = 200


# ---- the agent


class BenchAgent:
    """Says what it hears at once; with ``?answer`` it is quiet for HEARD_MS and then answers with ANSWER_MS."""

    def __init__(self) -> None:
        self._frame = OpusEncoder(48_000).encode(bytes(range(256)) * 7 + bytes(128))

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[SUBPROTOCOL], compress=False)
        await ws.prepare(request)
        answers = "answer" in request.query
        take = {"opus": self.opus, "media": self.media, "realtime": self.realtime}[request.match_info["kind"]]
        heard_ms = 0
        async for message in ws:
            heard_ms += await take(ws, message, say=not answers)
            if answers and heard_ms >= HEARD_MS:
                heard_ms = -3_600_000
                await self.answer(ws, request.match_info["kind"])
        return ws

    async def opus(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        if message.type is not WSMsgType.BINARY:
            return 0
        if say:
            await ws.send_bytes(message.data[HEADER.size :])
        return 20

    async def media(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        event = json.loads(message.data)
        if event["event"] != "media":
            return 0
        if say:
            payload = event["media"]["payload"]
            await ws.send_str(f'{{"event":"media","media":{{"payload":"{payload}"}}}}')
        return 20

    async def realtime(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        event = json.loads(message.data)
        if event["type"] == "session.update":
            await ws.send_str('{"type":"session.updated","session":{}}')
        if event["type"] != "input_audio_buffer.append":
            return 0
        if say:
            await ws.send_str(_DELTA % event["audio"])
        return len(event["audio"]) * 3 // 4 // 48

    async def answer(self, ws: web.WebSocketResponse, kind: str) -> None:
        for _ in range(ANSWER_MS // 20):
            if kind == "opus":
                await ws.send_bytes(self._frame)
            elif kind == "media":
                await ws.send_str(
                    json.dumps({"event": "media", "media": {"payload": base64.b64encode(bytes(160)).decode()}})
                )
            else:
                await ws.send_str(_DELTA % base64.b64encode(bytes(range(240)) * 4).decode())


_DELTA = '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","output_index":0,"content_index":0,"delta":"%s"}'
KINDS = {"OpusStream": "opus", "MediaStream": "media", "OpenAIRealtime": "realtime"}


def serve_agent(port: int) -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{kind}", BenchAgent().serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        await asyncio.Event().wait()

    uvloop.run(run())


# ---- the servers


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, ours or Pion's."""

    pid: int
    udp: int
    offer: object  # async (offer) → answer
    name: str = ""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def ours(backend: str, agent_url: str, calls: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:
        write_dev_secrets(Path(directory), "sk-bench-0123456789")
        port = free_port()
        tls = Path(directory) / "gateway"
        topology = Path(directory) / "topology.json"
        topology.write_text(Topology(cluster=1).dump())
        settings = TransceiverSettings(
            cluster_id=1,
            slot=1,
            generation=1,
            inner_address=HOST,
            port=port,
            hint_keys_file=f"{directory}/hint-keys/keys.json",
            call_keys_file=f"{directory}/call-keys/keys.json",
            topology=str(topology),
            tls_dir=f"{directory}/transceiver",
            capacity=calls + 1,
            accept_direct=True,
            drain_deadline_s=0,
            backend=backend,
            backend_url="" if backend == "Echo" else agent_url,
            backend_network="Loopback",
        )
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,), daemon=True)
        process.start()

        async def offer(sdp: str) -> str:
            context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
            context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
            body = CreateSession(
                request_id=uuid.uuid4().hex, offer=sdp, candidates=[{"address": HOST, "port": port}]
            ).model_dump_json()
            async with httpx.AsyncClient(verify=context, trust_env=False, timeout=10) as http:
                response = await http.request(
                    "POST",
                    f"https://{HOST}:{port}/v1/sessions",
                    content=body,
                    extensions={"sni_hostname": "transceiver.voicefleet.internal"},
                )
            return SessionCreated.model_validate_json(response.content).answer

        try:
            wait_for(port)
            assert process.pid is not None
            yield Server(process.pid, port, offer)
        finally:
            process.terminate()
            process.join(5)


@contextlib.contextmanager
def pions(backend: str, agent_url: str, binary: Path) -> Iterator[Server]:
    argv = [
        str(binary),
        "-backend",
        backend,
        "-agent",
        agent_url,
        "-complexity",
        str(COMPLEXITY),
        "-bitrate",
        str(BITRATE),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())

        async def offer(sdp: str) -> str:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                response = await http.post(f"http://{ready['http']}/offer", content=sdp)
            assert response.status_code == httpx.codes.OK, response.text
            return response.text

        try:
            yield Server(process.pid, ready["udp"], offer, ready["opus"])
        finally:
            process.send_signal(signal.SIGKILL)


def wait_for(port: int) -> None:
    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on {port}")


# ---- the callers


_kept: list[socket.socket] = []  # a closed socket's port would be given to the next caller, while its call still lives


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
    """Everybody speaks, spread over the 20 ms; gives how long it took."""
    loop = asyncio.get_running_loop()
    start, turn = loop.time(), 0
    while loop.time() - start < seconds:
        for index, caller in enumerate(callers):
            caller.say(offset + turn + 7 * index)
            if index % 10 == 9:
                await asyncio.sleep(max(0.0, start + (turn + index / len(callers)) * PACKET_S - loop.time()))
        turn += 1
        if turn % 125 == 0:
            for caller in callers:
                caller.check()
        await asyncio.sleep(max(0.0, start + turn * PACKET_S - loop.time()))
    return loop.time() - start


async def cost(server: Server, count: int, seconds: float, packets: list[bytes]) -> dict[str, float]:
    before_kb = rss_kb(server.pid)
    callers = await connect(server, count, packets)
    await talk(callers, 1.0)
    received = sum(caller.received for caller in callers)
    start = cpu_s(server.pid)
    elapsed = await talk(callers, seconds, 50)
    spent = cpu_s(server.pid) - start
    got = sum(caller.received for caller in callers) - received
    for caller in callers:
        asyncio.get_running_loop().remove_reader(caller.socket.fileno())
        caller.socket.close()
    per_call = spent / elapsed / count
    return {
        "ms_per_s_and_call": per_call * 1e3,
        "calls_per_core": 1 / per_call,
        "packets_out_per_s_and_call": got / elapsed / count,
        "kb_per_call": (rss_kb(server.pid) - before_kb) / count,
    }


async def latency(server: Server, packets: list[bytes]) -> float:
    """One caller: says HEARD_MS of speech, and waits for the answer."""
    (caller,) = await connect(server, 1, packets)
    loop = asyncio.get_running_loop()
    start, frames = loop.time(), HEARD_MS // 20
    for number in range(frames):
        if number == frames - 1:
            caller.listening = True
            said_at = time.monotonic()
        caller.say(number)
        await asyncio.sleep(max(0.0, start + (number + 1) * PACKET_S - loop.time()))
    await asyncio.wait_for(caller.heard.wait(), 5)
    loop.remove_reader(caller.socket.fileno())
    _kept.append(caller.socket)
    assert caller.first_at is not None
    return (caller.first_at - said_at) * 1e3


def recorded() -> list[bytes]:
    samples = read_wav(SPEECH)
    encoder = OpusEncoder(48_000, bitrate=32_000, dtx=False)
    return [encoder.encode(samples[at : at + 960].tobytes()) for at in range(0, len(samples) - 960, 960)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: for development")
    options = parser.parse_args()
    rounds, seconds, answers = (1, 3.0, 3) if options.quick else (3, 8.0, 20)
    calls = {"Echo": 100, "OpusStream": 60, "MediaStream": 40, "OpenAIRealtime": 40}
    packets, binary = recorded(), build_go("pionmedia")
    agent_port = free_port()
    agent = multiprocessing.get_context("spawn").Process(target=serve_agent, args=(agent_port,), daemon=True)
    agent.start()
    wait_for(agent_port)

    def url(backend: str, query: str = "") -> str:
        return f"ws://{HOST}:{agent_port}/{KINDS.get(backend, '')}{query}"

    def start(who: str, backend: str, query: str = ""):
        return (
            ours(backend, url(backend, query), max(calls.values()))
            if who == "voicefleet"
            else pions(backend, url(backend, query), binary)
        )

    places = [("voicefleet", backend) for backend in OURS] + [("Pion", backend) for backend in PIONS]
    costs: dict[tuple[str, str], list[dict[str, float]]] = {place: [] for place in places}
    delays: dict[tuple[str, str], list[float]] = {place: [] for place in places}
    peer_opus = ""
    try:
        for number in range(rounds):
            for who, backend in sorted(places, key=lambda place: (OURS.index(place[1]), place[0])):
                with start(who, backend) as server:
                    peer_opus = server.name or peer_opus
                    costs[who, backend].append(uvloop.run(cost(server, calls[backend], seconds, packets)))
                print(f"round {number + 1} {who} {backend}: {costs[who, backend][-1]}", file=sys.stderr)
        for who, backend in places:
            if backend == "Echo":
                continue
            with start(who, backend, "?answer") as server:
                for _ in range(answers):
                    delays[who, backend].append(uvloop.run(latency(server, packets)))
            print(f"{who} {backend}: {statistics.median(delays[who, backend]):.1f} ms", file=sys.stderr)
    finally:
        agent.terminate()
        agent.join(5)

    report = Report(
        "media",
        calls=calls,
        seconds=seconds,
        rounds=rounds,
        quick=options.quick,
        speech=SPEECH.name,
        opus={"complexity": COMPLEXITY, "bitrate": BITRATE, "voicefleet": version(), "pion": peer_opus},
        cores_shared_with="callers and agent",
    )
    medians = {}
    for (who, backend), runs in costs.items():
        name = f"{backend}, {who}"
        for what, unit in (
            ("ms_per_s_and_call", "ms/s"),
            ("calls_per_core", ""),
            ("kb_per_call", "KB"),
            ("packets_out_per_s_and_call", "1/s"),
        ):
            label = {
                "ms_per_s_and_call": "CPU a call",
                "calls_per_core": "calls a core",
                "kb_per_call": "memory a call",
                "packets_out_per_s_and_call": "packets out",
            }[what]
            medians[who, backend, what] = report.row("cost", name, label, unit, [run[what] for run in runs])
    for (who, backend), found in delays.items():
        if found:
            medians[who, backend, "delay"] = report.row(
                "latency", f"{backend}, {who}", "last word → first packet", "ms", found
            )
    ratio = (
        medians["voicefleet", "OpusStream", "ms_per_s_and_call"]
        / medians["voicefleet", "MediaStream", "ms_per_s_and_call"]
    )
    report.target(
        "what needs no coding does not pay for it",
        "OpusStream costs at most 0.6 of MediaStream",
        ratio,
        met=ratio <= 0.6,
    )
    for backend in PIONS:
        ours_ms, theirs_ms = (medians[who, backend, "ms_per_s_and_call"] for who in ("voicefleet", "Pion"))
        report.target(
            f"{backend}: CPU a call beside Pion", "at most Pion's", ours_ms / theirs_ms, met=ours_ms <= theirs_ms
        )
    print(report.write())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", ".")
    main()
