"""`voicefleet dev`: relay, two transceivers, gateway and Redis on loopback, each a process of its own, no Kubernetes.

Everything lives in one throw-away directory and ends with this process, whichever way it ends.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import typer

from voicefleet_contract.settings import GatewaySettings, RelaySettings, TransceiverSettings
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

HOST = "127.0.0.1"
CLUSTER = 1
POOL = "default"
_READY_WITHIN_S = 40.0  # engines of a pipeline load their models first
_GONE_WITHIN_S = 10.0
_PR_SET_PDEATHSIG = 1


class DevError(RuntimeError):
    """The fleet did not come up; the text says which process and what it said."""


class DevFleet:
    """A fleet on loopback: a context manager. ``url`` and ``api_key`` are for callers."""

    def __init__(
        self,
        transceivers: int = 2,
        gateway_port: int = 0,
        topology: Path | None = None,
        backend: dict[str, str] | None = None,
    ) -> None:
        """``backend``: fields of TransceiverSettings that begin with ``backend``; none: calls hear themselves."""
        self._count, self._gateway_port, self._given = transceivers, gateway_port, topology
        self._backend = backend or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="voicefleet-dev-"))
        self.api_key = "sk-dev-" + secrets.token_hex(8)
        self.redis = shutil.which("redis-server") is not None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def ca_file(self) -> Path:
        """The CA of the HTTPS certificate."""
        return self.directory / "https" / "ca.crt"

    def log(self, name: str) -> Path:
        """Return a process's log."""
        return self.directory / f"{name}.log"

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and wait for its end."""
        self._processes[name].send_signal(number)
        self._processes[name].wait(_GONE_WITHIN_S)

    def start(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        """Start a process; it dies with us, even if we are killed."""
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  we have one thread; only prctl tells a child of our death
                start_new_session=True,  # Ctrl-C reaches us alone: we end the others in order
            )
        self._arguments[name] = (argv, environment)

    def restart(self, name: str) -> None:
        """Start a process again as it was; `wait_ready` follows.

        Not from a short-lived thread: the kernel counts its end as ours.
        """
        self.start(name, *self._arguments[name])

    def watch(self) -> None:
        """Return when a process has ended by itself; raises DevError."""
        while True:
            self._check()
            time.sleep(0.5)  # a person watches this; nothing depends on how soon

    def close(self) -> None:
        """End every process, callers first, and remove the directory."""
        for name in ("gateway", *(n for n in self._processes if n.startswith("transceiver")), "relay", "redis"):
            if (process := self._processes.get(name)) is not None and process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_GONE_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        directory = self.directory
        self._arguments: dict[str, tuple[list[str], dict[str, str]]] = {}
        write_dev_secrets(directory, self.api_key)
        topology_file = directory / "topology.json"
        topology = Topology.load(self._given.read_bytes()) if self._given is not None else self._topology()
        topology_file.write_text(topology.dump())
        redis_url = self._start_redis()
        common = {
            "cluster_id": topology.cluster,
            "topology": str(topology_file),
            "hint_keys_file": str(directory / "hint-keys" / "keys.json"),
        }
        program = [sys.executable, "-m", "voicefleet_dataplane"]
        for relay in topology.relays:
            settings = RelaySettings.model_validate(
                common
                | {
                    "process_name": relay.name,
                    "public_address": relay.advertise[0].address,
                    "public_port": relay.advertise[0].port,
                    "inner_address": relay.inner[0].address,
                    "inner_port": relay.inner[0].port,
                    "redis_url": redis_url,
                    "leave_grace_s": 0,
                }
            )
            name = "relay" if len(topology.relays) == 1 else f"relay-{relay.name}"
            self.start(name, [*program, "relay"], settings.to_environment())
        for pool in topology.pools:
            for member in pool.members:
                owner = TransceiverSettings.model_validate(
                    common
                    | {
                        "process_name": member.name or f"{pool.name}-{member.slot}",
                        "pool": pool.name,
                        "slot": member.slot,
                        "generation": member.generation,
                        "inner_address": member.address,
                        "port": member.port,
                        "call_keys_file": str(directory / "call-keys" / "keys.json"),
                        "tls_dir": str(directory / "transceiver"),
                        "redis_url": redis_url,
                        "drain_deadline_s": 0,
                        "backend_network": "Loopback",  # a developer's agent lives on the same machine
                    }
                    | self._backend
                )
                self.start(f"transceiver-{member.slot}", [*program, "transceiver"], owner.to_environment())
        gateway = GatewaySettings.model_validate(
            {
                "cluster_id": topology.cluster,
                "topology": str(topology_file),
                "pool": topology.pools[0].name,
                "public_address": HOST,
                "public_port": self._gateway_port or _free_port(socket.SOCK_STREAM),
                "inner_address": HOST,
                "inner_port": _free_port(socket.SOCK_STREAM),
                "https_dir": str(directory / "https"),
                "call_keys_file": str(directory / "call-keys" / "keys.json"),
                "api_keys_dir": str(directory / "api-keys"),
                "tls_dir": str(directory / "gateway"),
                "leave_grace_s": 0,
                "redis_url": redis_url,
                "fleet_view_keys": "dev",
            }
        )
        self.url = f"https://{HOST}:{gateway.public_port}"
        self._health = [f"http://{HOST}:{gateway.inner_port}/readyz"]
        self._health += [f"http://{relay.inner[0].as_address()}/readyz" for relay in topology.relays]
        self.members = [member.as_address() for pool in topology.pools for member in pool.members]
        self.start("gateway", [*program, "gateway"], gateway.to_environment())
        self.wait_ready()

    def _start_redis(self) -> str:
        if not self.redis:
            return ""
        port = _free_port(socket.SOCK_STREAM)
        self.start(
            "redis", ["redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"], {}
        )
        return f"redis://{HOST}:{port}/0"

    def _topology(self) -> Topology:
        public, inner = _free_port(), _free_port()
        relay = Relay(
            name="dev",
            relay="dev",
            region="local",
            advertise=(Endpoint(address=HOST, port=public),),
            inner=(Endpoint(address=HOST, port=inner),),
        )
        members = tuple(
            Member(slot=slot, generation=1, name=f"dev-{slot}", address=HOST, port=_free_port())
            for slot in range(1, self._count + 1)
        )
        return Topology(
            cluster=CLUSTER,
            cluster_name="dev",
            revision=1,
            relays=(relay,),
            pools=(Pool(name=POOL, ring_epoch=1, members=members),),
        )

    def wait_ready(self) -> None:
        """Poll from outside: the processes have health endpoints and no other event."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            self._check()
            if all(map(_answers_ready, self._health)) and all(map(_accepts, self.members)):
                return
            if time.monotonic() > deadline:
                raise DevError(f"the fleet is not ready after {_READY_WITHIN_S:g} s\n{self._logs()}")
            time.sleep(0.05)

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = self.log(name).read_text(errors="replace")[-2000:]
                code = process.returncode
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
                raise DevError(f"{name} {how}; its last words:\n{tail}")

    def _logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name).read_text(errors='replace')[-800:]}" for name in self._processes)


def dev(transceivers: int, port: int, topology: Path | None, backend: dict[str, str]) -> int:
    """Run a fleet until Ctrl-C."""
    typer.echo("starting relay, transceivers, gateway, Redis on loopback …")
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        with DevFleet(transceivers, port, topology, backend) as fleet:
            if not fleet.redis:
                typer.echo("redis-server is not installed: running without a registry (calls do not need one)")
            typer.echo(f"ready after {time.monotonic() - began:.1f} s; logs and topology in {fleet.directory}")
            typer.echo(f"\n  URL      {fleet.url}\n  API key  {fleet.api_key}\n")
            typer.echo(f"talk in a browser: open {fleet.url}/ and give it the key; or place a call:\n")
            typer.echo(f"  voicefleet call {fleet.url} --key {fleet.api_key} --cacert {fleet.ca_file}\n")
            typer.echo("Ctrl-C ends it all.")
            fleet.watch()
    except DevError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        typer.echo("\nended")
    return 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """Return a number that is free for UDP and TCP just now."""
    while True:
        with socket.socket(socket.AF_INET, kind) as first:
            first.bind((HOST, 0))
            port = int(first.getsockname()[1])
            other = socket.SOCK_STREAM if kind == socket.SOCK_DGRAM else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, other) as second:
                try:
                    second.bind((HOST, port))
                except OSError:
                    continue
                return port


def _answers_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1.0):
            return True
    except OSError:
        return False
