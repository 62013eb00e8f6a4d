"""Two relay nodes that answer for one public address, as behind a load balancer or ECMP: real processes in namespaces.

::

                    ┌── 10.1.1.0/24 ── one: relay ── 10.2.1.0/24 ──┐
    client ns ──────┤                                              ├── owner ns: transceiver, gateway, Redis
    198.51.100.7    └── 10.1.2.0/24 ── two: relay ── 10.2.2.0/24 ──┘            10.9.0.1
        └───────────────────── 10.3.0.0/24: signaling ──────────────┘

Both relays have 192.0.2.1; the client's route says which of them gets its packets. Or they and the client share a network, and
the address itself moves from node to node, as keepalived and its kind have it:

    client ns ── bridge 10.1.0.1/24 ──┬── one  10.1.0.11     10.1.0.100 is on the one or on the other
                                      └── two  10.1.0.12
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.support.namespaces import Namespace, connect
from voicefleet_contract.settings import GatewaySettings, RelaySettings, TransceiverSettings
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

PUBLIC, CLIENT, OWNER = "192.0.2.1", "198.51.100.7", "10.9.0.1"
MOVING = "10.1.0.100"
RELAYS = {"one": 1, "two": 2}
REDIS_URL = f"redis://{OWNER}:6379/0"
_READY_WITHIN_S = 60.0


class TwoRelays:
    """A context manager. The client's packets go to relay one at first."""

    def __init__(self, directory: Path, *, address_moves: bool = False, **relay_settings: object) -> None:
        """``relay_settings`` of both relays, beside what makes them find each other."""
        self.directory = directory
        self.address_moves = address_moves
        self.public = MOVING if address_moves else PUBLIC
        self._relay_settings = relay_settings
        self.api_key = "sk-test-0123456789abcdef"
        self.url = f"http://{OWNER}:8443"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._namespaces = {name: Namespace() for name in ("client", "owner", *RELAYS)}
        self.client = self._namespaces["client"]

    def __enter__(self):
        try:
            self._lay_links()
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in list(self._processes):
            self.kill(name)
        for namespace in self._namespaces.values():
            namespace.close()

    def start_anew(self) -> None:
        """Start relays and Redis again, so that none of them knows a flow; the client is led to relay one."""
        for name in ("redis", *RELAYS):
            if name in self._processes:
                self.kill(name)
        self._start_redis()
        for name in RELAYS:
            self.start_relay(name)
        self.lead_client_to("one")

    def kill(self, name: str) -> None:
        """SIGKILL and wait."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """SIGTERM and wait: a process that is restarted leaves in its own time."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait()

    def lead_client_to(self, relay: str) -> None:
        """Move the public address' route, as a load balancer or a router does; or the address."""
        number = RELAYS[relay]
        if self.address_moves:
            for name in RELAYS:
                change = "replace" if name == relay else "del"
                with contextlib.suppress(AssertionError):  # it was not there
                    self._namespaces[name].ip(f"addr {change} {MOVING}/24 dev outside")
            self.client.ip(f"neigh flush to {MOVING}")  # what a gratuitous ARP says
            return
        self.client.ip(f"route replace {PUBLIC}/32 via 10.1.{number}.2 src {CLIENT}")

    def metrics(self, relay: str) -> dict[str, float]:
        """Return a relay's samples. Call it from a thread of its own."""
        with self._namespaces[relay].inside():
            text = httpx.get(f"http://10.2.{RELAYS[relay]}.1:3479/metrics", trust_env=False, timeout=5).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _lay_links(self) -> None:
        client, owner = self.client, self._namespaces["owner"]
        connect(client, owner, "signal", "signal")
        client.ip("addr add 10.3.0.1/24 dev signal")
        owner.ip("addr add 10.3.0.2/24 dev signal")
        client.ip(f"addr add {CLIENT}/32 dev lo")
        if self.address_moves:
            client.ip("link add lan type bridge")
            client.ip("addr add 10.1.0.1/24 dev lan")
            client.ip("link set lan up")
        owner.ip(f"addr add {OWNER}/32 dev lo")
        client.ip(f"route add {OWNER}/32 via 10.3.0.2")
        for name, number in RELAYS.items():
            relay = self._namespaces[name]
            connect(client, relay, f"to{name}", "outside")
            connect(relay, owner, "inside", f"to{name}")
            relay.ip(f"addr add 10.2.{number}.1/24 dev inside")
            owner.ip(f"addr add 10.2.{number}.2/24 dev to{name}")
            relay.sysctl("net.ipv4.ip_forward", 1)
            if self.address_moves:
                client.ip(f"link set to{name} master lan")
                relay.ip(f"addr add 10.1.0.1{number}/24 dev outside")
                relay.sysctl("net.ipv4.ip_nonlocal_bind", 1)  # a relay starts before the address comes
            else:
                client.ip(f"addr add 10.1.{number}.1/24 dev to{name}")
                relay.ip(f"addr add 10.1.{number}.2/24 dev outside")
                relay.ip(f"addr add {PUBLIC}/32 dev lo")
                relay.ip(f"route add {CLIENT}/32 via 10.1.{number}.1")
            relay.ip(f"route add {OWNER}/32 via 10.2.{number}.2")

    def _start_all(self) -> None:
        directory = self.directory
        write_dev_secrets(directory, self.api_key)
        member = Member(slot=1, generation=1, name="agents-1-1", address=OWNER, port=20000)
        relays = tuple(
            Relay(
                name=name,
                relay="fra",
                region="local",
                advertise=(Endpoint(address=self.public, port=3478),),
                inner=(Endpoint(address=f"10.2.{number}.1", port=3479),),
            )
            for name, number in RELAYS.items()
        )
        pools = (Pool(name="agents", ring_epoch=1, members=(member,)),)
        topology = Topology(cluster=1, revision=1, relays=relays, pools=pools)
        (directory / "topology.json").write_text(topology.dump())
        common = {"cluster_id": 1, "topology": str(directory / "topology.json")}
        hint_keys = {"hint_keys_file": str(directory / "hint-keys" / "keys.json")}
        call_keys = {"call_keys_file": str(directory / "call-keys" / "keys.json")}
        self._start_redis()
        owner = TransceiverSettings.model_validate(
            {
                **common, **hint_keys, **call_keys, "pool": "agents", "slot": 1, "generation": 1,
                "inner_address": OWNER, "port": 20000, "tls_dir": str(directory / "transceiver"), "drain_deadline_s": 0,
            }
        )  # fmt: skip
        gateway = GatewaySettings.model_validate(
            {
                **common, **call_keys, "pool": "agents", "public_address": OWNER, "inner_address": OWNER, "https_dir": "",
                "api_keys_dir": str(directory / "api-keys"), "tls_dir": str(directory / "gateway"), "leave_grace_s": 0,
            }
        )  # fmt: skip
        self._start_role("owner", "transceiver", owner)
        self._start_role("owner", "gateway", gateway)
        self._wait_until_ready("owner", f"http://{OWNER}:{gateway.inner_port}/readyz")

    def _start_redis(self) -> None:
        argv = ["redis-server", "--bind", OWNER, "--save", "", "--protected-mode", "no"]
        self._start("owner", "redis", argv, {})

    def start_relay(self, name: str) -> None:
        """Start a relay on its node, and wait until it is ready."""
        inner = f"10.2.{RELAYS[name]}.1"
        settings = RelaySettings.model_validate(
            {
                "cluster_id": 1, "topology": str(self.directory / "topology.json"), "process_name": name,
                "hint_keys_file": str(self.directory / "hint-keys" / "keys.json"), "public_address": self.public,
                "inner_address": inner, "redis_url": REDIS_URL, "leave_grace_s": 0, "node_name": name, "relay_name": "fra",
                **self._relay_settings,
            }
        )  # fmt: skip
        self._start_role(name, "relay", settings, log=name)
        self._wait_until_ready(name, f"http://{inner}:3479/readyz")

    def _start_role(self, where: str, role: str, settings, log: str = "") -> None:
        argv = [sys.executable, "-m", "voicefleet_dataplane", role]
        self._start(where, log or role, argv, settings.to_environment())

    def _start(self, where: str, name: str, argv: list[str], environment: dict[str, str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._namespaces[where].command(*argv),
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
            )

    def _wait_until_ready(self, where: str, url: str) -> None:
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                with self._namespaces[where].inside():
                    if httpx.get(url, timeout=1.0, trust_env=False).status_code == httpx.codes.OK:
                        return
            except httpx.HTTPError:
                pass
            if time.monotonic() > give_up_at:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in self._processes)
                raise AssertionError(f"{url} is not ready\n{logs}")
            time.sleep(0.05)
