"""The servers of bench/media.py: a transceiver of ours, and a Pion program that does the same work, each a process (or a few) of its own."""

import contextlib
import json
import multiprocessing
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.media_callers import HOST
from bench.transceiver_load import cpu_s, rss_kb, serve
from voicefleet_contract.http_api import CreateSession, SessionCreated
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.opus import BITRATE, COMPLEXITY

AGENTLESS = ("Echo", "Pipeline")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, ours or Pion's, with all its processes."""

    pid: int
    udp: int
    offer: Callable[[str], Awaitable[str]]
    name: str = ""

    def cpu_s(self) -> float:
        """CPU time, user and system; of processes that are there now."""
        return sum(map(cpu_s, family(self.pid)))

    def rss_kb(self) -> int:
        """Resident memory; what processes share counts for each."""
        return sum(map(rss_kb, family(self.pid)))


def family(pid: int) -> list[int]:
    """A process and its descendants: a pipeline's engines are processes of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


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
            backend_url="" if backend in AGENTLESS else agent_url,
            backend_network="Loopback",
            pipeline_text="Repeat",
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
    """Until somebody listens; engines load their models first."""
    for _ in range(800):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on {port}")
