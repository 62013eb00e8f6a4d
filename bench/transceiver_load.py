"""What a transceiver process costs: CPU per packet and per call, and per set-up, measured from outside.

One process of ours (uvloop, real sockets, mutual TLS control API) echoes N calls of 50 packets a second each way; the clients
are those of `voicefleet call`, in this process. Prints one line of JSON.

    .venv/bin/python -m bench.transceiver_load --calls 100 --seconds 10
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import secrets
import socket
import ssl
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx
import uvloop

from voicefleet_contract.http_api import CreateSession, SessionCreated
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity
from voicefleet_dataplane.shell.client.packet_caller import FRAME_S, Caller, make_identity
from voicefleet_dataplane.shell.transceiver.process import run_transceiver

HOST = "127.0.0.1"
PAYLOAD = bytes(120)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class StraightToTransceiver(httpx.AsyncBaseTransport):
    """What a gateway does for a caller, without a gateway: offers and hang-ups become control requests of one transceiver."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._inner = httpx.AsyncHTTPTransport(verify=context, limits=httpx.Limits(max_connections=20))
        self.port = port

    async def control(self, method: str, path: str, content: str = "") -> httpx.Response:
        url = f"https://{HOST}:{self.port}{path}"
        extensions = {"sni_hostname": "transceiver.voicefleet.internal"}
        async with httpx.AsyncClient(transport=Borrowed(self._inner), timeout=10) as http:
            return await http.request(method, url, content=content, extensions=extensions)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/hangup"):
            gone = await self.control("DELETE", f"/v1/sessions/{request.url.path.split('/')[-2]}")
            return httpx.Response(gone.status_code)
        body = CreateSession(
            request_id=secrets.token_hex(8),
            offer=(await request.aread()).decode(),
            candidates=[{"address": HOST, "port": self.port}],
        )
        response = await self.control("POST", "/v1/sessions", body.model_dump_json())
        if response.status_code != 201:
            return httpx.Response(response.status_code, text=response.text)
        created = SessionCreated.model_validate_json(response.content)
        return httpx.Response(201, headers={"Location": f"/calls/{created.call_id}"}, text=created.answer)


class Borrowed(httpx.AsyncBaseTransport):
    """A transport that stays open when its client is closed."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._inner.handle_async_request(request)


class HeldCaller(Caller):
    """Connects, and speaks when it is told to: set-up and speech are measured apart."""

    def __init__(self, http: httpx.AsyncClient, identity: DtlsIdentity, packets: list[bytes]) -> None:
        super().__init__(http, identity, packets)
        self.connected, self.may_speak = asyncio.Event(), asyncio.Event()

    async def _speak(self) -> None:
        self.connected.set()
        await self.may_speak.wait()
        await super()._speak()


def serve(settings: TransceiverSettings) -> None:
    uvloop.run(run_transceiver(settings))


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def measure(calls: int, seconds: float, pid: int, port: int, tls: Path) -> dict[str, object]:
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    straight = StraightToTransceiver(context, port)

    async def status() -> dict[str, Any]:
        return dict((await straight.control("GET", "/v1/status")).json())

    async with httpx.AsyncClient(transport=straight, base_url="http://caller", timeout=10) as http:
        async with asyncio.timeout(30):
            while True:
                try:
                    await status()
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        packets, identity = [PAYLOAD] * round(seconds / FRAME_S), make_identity()
        callers = [HeldCaller(http, identity, packets) for _ in range(calls)]
        before_cpu, before_kb = cpu_s(pid), rss_kb(pid)
        running = []
        for caller in callers:
            running.append(asyncio.create_task(caller.run("http://caller/calls", {})))
            connected = asyncio.create_task(caller.connected.wait())
            await asyncio.wait({running[-1], connected}, return_when=asyncio.FIRST_COMPLETED)
            if caller.result.error:
                raise SystemExit(f"call {len(running)}: {caller.result.error}")
        setup_ms = (cpu_s(pid) - before_cpu) / calls * 1e3
        kb_per_call = (rss_kb(pid) - before_kb) / calls
        loop = asyncio.get_running_loop()
        before = await status()
        start_cpu, start = cpu_s(pid), loop.time()
        for index, caller in enumerate(callers):  # spread over the 20 ms, as clients are
            loop.call_later(index / calls * FRAME_S, caller.may_speak.set)
        await asyncio.sleep(seconds)
        spent, elapsed = cpu_s(pid) - start_cpu, loop.time() - start
        after = await status()
        results = await asyncio.gather(*running)
        packets_in = after["packets_in"] - before["packets_in"]
        round_trips = [result.rtt_ms for result in results if result.rtt_ms is not None]
        return {
            "calls": calls,
            "seconds": round(elapsed, 2),
            "setup_cpu_ms_per_call": round(setup_ms, 2),
            "rss_growth_kb_per_call": round(kb_per_call, 1),
            "packets_in_per_s": round(packets_in / elapsed),
            "cpu_us_per_packet_in_and_out": round(spent / packets_in * 1e6, 2),
            "cpu_ms_per_s_and_call": round(spent / elapsed / calls * 1e3, 3),
            "cpu_share": round(spent / elapsed, 3),
            "stun_rtt_ms_p50": round(statistics.median(round_trips), 3) if round_trips else None,
            "lost": sum(result.sent - result.returned for result in results),
            "sent": sum(result.sent for result in results),
            "drops": after["drops"],
            "errors": [result.error for result in results if result.error],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        write_dev_secrets(Path(directory), "sk-bench-0123456789")
        free.bind((HOST, 0))
        port = free.getsockname()[1]
        free.close()
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
            tls_dir=f"{directory}/transceiver",
            capacity=options.calls,
            topology=str(topology),
            accept_direct=True,
            drain_deadline_s=0,
        )
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,), daemon=True)
        server.start()
        assert server.pid is not None
        try:
            result = uvloop.run(measure(options.calls, options.seconds, server.pid, port, Path(directory) / "gateway"))
        finally:
            server.terminate()
            server.join(5)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
