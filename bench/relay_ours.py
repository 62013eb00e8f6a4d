"""`voicefleet relay` as a way in bench/relay.py: in user space, with a flow cache, and with each kernel path."""

import contextlib
import http.client
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import netns
from bench.relay_dial import until_all_answer
from bench.relay_paths import OWNER_PORT, PUBLIC_PORT, Way
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.settings import RelaySettings
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.wire.stun import build_binding_request

INNER_PORT = 3479
_KEYS = KeyRing({1: b"k" * 32}, signing=1)
_CLUSTER, _SLOT, _GENERATION = 9, 1, 1
_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
_READY_WITHIN_S = 60
_checks: list[bytes] = []
_mounted: set[str] = set()


class OurRelay(Way):
    """`voicefleet relay`, as it is shipped."""

    name = "voicefleet, user space"
    inner_host = netns.RELAY_INNER_HOST
    _directory: tempfile.TemporaryDirectory[str] | None = None
    client_host, destination = netns.CLIENT_HOST, (netns.RELAY_PUBLIC_HOST, PUBLIC_PORT)
    owner_host = netns.OWNER_HOST
    rechecked = True

    def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="vfbench")
        directory = Path(self._directory.name)
        (directory / "keys.json").write_text(_KEYS.to_json())
        member = Member(slot=_SLOT, generation=_GENERATION, address=netns.OWNER_HOST, port=OWNER_PORT)
        relays = tuple(
            Relay(name=f"bench-{host}", inner=(Endpoint(address=host, port=INNER_PORT),))
            for host in (netns.RELAY_INNER_HOST, netns.SECOND_INNER_HOST)
        )
        topology = Topology(cluster=_CLUSTER, pools=(Pool(name="agents", members=(member,)),), relays=relays)
        (directory / "topology.json").write_text(topology.dump())
        self._settings = RelaySettings.model_validate(
            {
                "cluster_id": _CLUSTER,
                "topology": str(directory / "topology.json"),
                "hint_keys_file": str(directory / "keys.json"),
                "public_address": netns.RELAY_PUBLIC_HOST,
                "public_port": PUBLIC_PORT,
                "inner_address": self.inner_host,
                "inner_port": INNER_PORT,
                "leave_grace_s": 0,
                **self.settings(),
            }
        )
        self.launch()

    def settings(self) -> dict[str, object]:
        """What differs from the defaults."""
        return {}

    def launch(self) -> None:
        """Start the process, and wait until it is ready."""
        command = shutil.which("voicefleet", path=str(Path(sys.executable).parent))
        assert command is not None
        self._spawn(command, "relay", environment=self._settings.to_environment())
        self._await_ready()

    def get(self, path: str) -> str:
        """Ask the relay's inner listener."""
        with self.namespaces.entered(self.place):
            connection = http.client.HTTPConnection(self.inner_host, INNER_PORT, timeout=5)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"{path} answered {answer.status}")
            return answer.read().decode()

    def samples(self) -> dict[str, float]:
        """What it counts, by name with labels."""
        lines = (line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def dial(self, sockets: list[socket.socket]) -> list[bytes]:
        checks = checks_of(len(sockets))
        until_all_answer(sockets, checks)
        return checks

    def stop(self) -> None:
        super().stop()
        if self._directory is not None:
            self._directory.cleanup()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                self.get("/readyz")
                return
            process = self.processes[-1]
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"{self.name} did not become ready: {process.communicate()[1]}")
            time.sleep(0.05)


class SecondRelay(OurRelay):
    """Another relay that answers for the same public address."""

    name = "voicefleet, second relay"
    inner_host = netns.SECOND_INNER_HOST

    @property
    def place(self) -> str:
        return self.namespaces.second


_REDIS_PORT = 6379
_WITH_REDIS = {"redis_url": f"redis://{netns.OWNER_HOST}:{_REDIS_PORT}/0"}


class CachedRelay(OurRelay):
    """The same with a flow cache: Redis, beside the owner."""

    name = "voicefleet, user space, flow cache"
    _redis: subprocess.Popen[bytes] | None = None

    def settings(self) -> dict[str, object]:
        return dict(_WITH_REDIS)

    def start(self) -> None:
        command = ("redis-server", "--bind", netns.OWNER_HOST, "--port", str(_REDIS_PORT), "--save", "")
        self._redis = subprocess.Popen(
            self.namespaces.command(self.namespaces.owner, *command, "--protected-mode", "no"),
            stdout=subprocess.DEVNULL,
        )
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()


class SecondCachedRelay(SecondRelay):
    """The other one, which asks the same cache."""

    def settings(self) -> dict[str, object]:
        return dict(_WITH_REDIS)


def unmount() -> None:
    """Take away what kernel paths have mounted, with what is pinned there. An interrupted `stop` may have left some."""
    while _mounted:
        directory = _mounted.pop()
        subprocess.run(["umount", directory], check=False, capture_output=True)
        Path(directory).rmdir()
        _STATISTICS.write_text("0")


class KernelPath(OurRelay):
    """Media of bound flows in the kernel; checks, and everything else, through the process."""

    mode = "TCX"

    def settings(self) -> dict[str, object]:
        return {
            "datapath": self.mode,
            "bpffs": self._bpffs,
            "node_name": "bench",
            "relay_name": "bench",
        }

    def start(self) -> None:
        self._bpffs = tempfile.mkdtemp(prefix="vfbpf")
        _mounted.add(self._bpffs)
        subprocess.run(["mount", "-t", "bpf", "bpffs", self._bpffs], check=True)
        _STATISTICS.write_text("1")
        super().start()
        says = next(line for line in self.get("/metrics").splitlines() if line.startswith("voicefleet_relay_datapath{"))
        if f'mode="{self.mode}"' not in says:
            raise RuntimeError(f"{self.mode} was refused: {says}")

    def programs_ns(self) -> int:
        """Run time of the programs that the process holds, as the kernel counts it."""
        found: dict[str, int] = {}
        for entry in Path(f"/proc/{self.processes[-1].pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                fields = dict(line.split(":\t", 1) for line in entry.read_text().splitlines() if ":\t" in line)
                if "run_time_ns" in fields:
                    found[fields["prog_id"]] = int(fields["run_time_ns"])
        return sum(found.values())

    def stop(self) -> None:
        super().stop()
        unmount()
        for device in ("outside", "inside"):  # a clsact filter is no link: it stays where it was put
            command = self.namespaces.command(self.place, "tc", "qdisc", "del", "dev", device, "clsact")
            subprocess.run(command, check=False, capture_output=True)


class Tcx(KernelPath):
    """The default on kernels from 6.6."""

    name = "voicefleet, TCX"
    mode = "TCX"


class Clsact(KernelPath):
    """The default before that."""

    name = "voicefleet, clsact"
    mode = "Clsact"


class XdpNative(KernelPath):
    """In the driver. On veth the peers must do GRO for redirected packets to arrive, and checksums themselves."""

    name = "voicefleet, native XDP"
    mode = "XDPNative"

    def start(self) -> None:
        self._offload("on")
        super().start()

    def stop(self) -> None:
        super().stop()
        self._offload("off")

    def _offload(self, state: str) -> None:
        for namespace, device in ((self.namespaces.client, "toward"), (self.namespaces.owner, "back")):
            checksums = "off" if state == "on" else "on"
            self.namespaces.run(namespace, "ethtool", "-K", device, "gro", state, "tx", checksums)


class XdpGeneric(KernelPath):
    """For kernels that refuse tc."""

    name = "voicefleet, generic XDP"
    mode = "XDPGeneric"


def checks_of(count: int) -> list[bytes]:
    """Valid checks, each with a ufrag of its own."""
    while len(_checks) < count:
        ufrag = encode_hint(Hint(1, _CLUSTER, _SLOT, _GENERATION, len(_checks)), _KEYS)
        password = ice_pwd(ufrag, 1, _KEYS).encode()
        _checks.append(build_binding_request(secrets.token_bytes(12), f"{ufrag}:cccc", password))
    return _checks[:count]


def forged_checks(count: int) -> list[bytes]:
    """Checks that name our member: every other one with another key's tag, the rest with a wrong password."""
    other = KeyRing({1: b"x" * 32}, signing=1)
    made = []
    for number in range(count):
        ufrag = encode_hint(Hint(1, _CLUSTER, _SLOT, _GENERATION, number), other if number % 2 else _KEYS)
        made.append(build_binding_request(secrets.token_bytes(12), f"{ufrag}:cccc", b"wrong"))
    return made
