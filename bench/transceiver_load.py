"""What a transceiver process costs: CPU per packet and per call, and per set-up, measured from outside.

One process of ours (uvloop, real sockets, mutual TLS control API) echoes N calls of 50 packets a second each way; the clients
live in this process and speak our own wire code over one UDP socket each. Prints one line of JSON.

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
import time
from pathlib import Path

import httpx
import uvloop

from tests.support.dtls import make_identity
from tests.support.offers import CHROMIUM, DIGEST
from voicefleet_contract.http_api import CreateSession, SessionCreated
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.core.dtls import Dtls
from voicefleet_dataplane.core.srtp import PROFILES, Srtp
from voicefleet_dataplane.shell.transceiver import run_transceiver
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp
from voicefleet_dataplane.wire.sdp import Fingerprint, SetupRole, parse_offer_untrusted
from voicefleet_dataplane.wire.stun import build_binding_request

HOST = "127.0.0.1"
PACKET_S = 0.02
PAYLOAD = bytes(120)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Caller:
    """One client on a socket of its own."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.identity = make_identity(PROFILES)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.connect(server)
        self.socket.setblocking(False)
        self.srtp: Srtp | None = None
        self.connected = asyncio.Event()
        self.sequence = 0
        self.received = 0
        self.round_trips_ms: list[float] = []
        self.sent_at: dict[int, float] = {}

    def offer(self) -> str:
        return CHROMIUM.replace(DIGEST, self.identity.fingerprint.digest.hex(":").upper())

    def start(self, answer: str) -> None:
        described = parse_offer_untrusted(answer.replace("a=ice-lite\r\n", ""))
        fingerprint: Fingerprint = described.fingerprints[0]
        self.ufrag, self.pwd = described.ice_ufrag, described.ice_pwd
        self.dtls = Dtls(self.identity, [fingerprint], we_are_client=described.setup is SetupRole.PASSIVE)
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self.read)
        self.check()

    def check(self) -> None:
        request = build_binding_request(
            secrets.token_bytes(12), f"{self.ufrag}:aB3+", self.pwd.encode(), use_candidate=True
        )
        self.socket.send(request)

    def read(self) -> None:
        now = time.monotonic()
        while True:
            try:
                datagram = self.socket.recv(2048)
            except BlockingIOError:
                break
            kind = classify(datagram)
            if kind is Kind.RTP:
                assert self.srtp is not None
                clear = self.srtp.unprotect_untrusted(datagram)
                if clear is not None:
                    self.received += 1
                    sent = self.sent_at.pop(int.from_bytes(clear[-8:]), None)
                    if sent is not None:
                        self.round_trips_ms.append((now - sent) * 1e3)
            elif kind is Kind.STUN:
                self.dtls.start(now) if self.dtls._we_are_client else None
            elif kind is Kind.DTLS:
                self.dtls.receive_untrusted(datagram, now)
                if self.srtp is None and self.dtls.keys is not None:
                    self.srtp = Srtp(self.dtls.keys)
                    self.connected.set()
        for datagram in self.dtls.poll():
            self.socket.send(datagram)

    def speak(self) -> None:
        assert self.srtp is not None
        self.sequence += 1
        payload = PAYLOAD[8:] + self.sequence.to_bytes(8)
        packet = RtpPacket(False, 111, self.sequence & 0xFFFF, self.sequence * 960 & 0xFFFFFFFF, 77, payload)
        protected = self.srtp.protect(build_rtp(packet))
        assert protected is not None
        if self.sequence % 10 == 0:
            self.sent_at[self.sequence] = time.monotonic()
        self.socket.send(protected)


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
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=10) as http:

        async def request(method: str, path: str, body: str | None = None) -> httpx.Response:
            return await http.request(
                method,
                f"https://{HOST}:{port}{path}",
                content=body,
                extensions={"sni_hostname": "transceiver.voicefleet.internal"},
            )

        while True:
            try:
                await request("GET", "/v1/status")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        callers = [Caller((HOST, port)) for _ in range(calls)]
        before_cpu, before_kb = cpu_s(pid), rss_kb(pid)
        for index, caller in enumerate(callers):
            body = CreateSession(
                request_id=f"request-{index}", offer=caller.offer(), candidates=[{"address": HOST, "port": port}]
            )
            response = await request("POST", "/v1/sessions", body.model_dump_json())
            caller.start(SessionCreated.model_validate_json(response.content).answer)
            await asyncio.wait_for(caller.connected.wait(), 10)
        setup_ms = (cpu_s(pid) - before_cpu) / calls * 1e3
        kb_per_call = (rss_kb(pid) - before_kb) / calls
        loop = asyncio.get_running_loop()
        status = (await request("GET", "/v1/status")).json()
        start_cpu, start = cpu_s(pid), loop.time()
        turn = 0
        while loop.time() - start < seconds:
            # Spread over the 20 ms, as clients are.
            for index, caller in enumerate(callers):
                caller.speak()
                if index % 10 == 9:
                    await asyncio.sleep(max(0.0, start + (turn + index / calls) * PACKET_S - loop.time()))
            turn += 1
            if turn % 125 == 0:
                for caller in callers:
                    caller.check()
            await asyncio.sleep(max(0.0, start + turn * PACKET_S - loop.time()))
        spent, elapsed = cpu_s(pid) - start_cpu, loop.time() - start
        await asyncio.sleep(0.2)
        after = (await request("GET", "/v1/status")).json()
        packets_in = after["packets_in"] - status["packets_in"]
        sent = sum(caller.sequence for caller in callers)
        round_trips = [one for caller in callers for one in caller.round_trips_ms]
        return {
            "calls": calls,
            "seconds": round(elapsed, 2),
            "setup_cpu_ms_per_call": round(setup_ms, 2),
            "rss_growth_kb_per_call": round(kb_per_call, 1),
            "packets_in_per_s": round(packets_in / elapsed),
            "cpu_us_per_packet_in_and_out": round(spent / packets_in * 1e6, 2),
            "cpu_ms_per_s_and_call": round(spent / elapsed / calls * 1e3, 3),
            "cpu_share": round(spent / elapsed, 3),
            "echo_rtt_ms_p50": round(statistics.median(round_trips), 3),
            "lost": sent - sum(caller.received for caller in callers),
            "sent": sent,
            "drops": after["drops"],
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
