"""The ways that a packet can go in bench/relay.py: each starts what stands in the middle, and makes its flows from outside.

Every path is given what its kind needs and no more: ours gets authenticated checks, the Go stand-in makes a flow of the
first datagram, coturn gets an allocation and a channel for each client. What all share: one process pinned to one core,
4 MiB of receive buffer where it lets one choose, the same sockets and the same echo at the far end.
"""

import contextlib
import http.client
import os
import secrets
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import netns
from bench.netns import Namespaces
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.settings import RelaySettings
from voicefleet_contract.topology import Endpoint, Member, Pool, Relay, Topology
from voicefleet_dataplane.wire.stun import build_binding_request

OWNER_PORT, PUBLIC_PORT, INNER_PORT = 7000, 3478, 3479
RELAY_CPU = "1"
_KEYS = KeyRing({1: b"k" * 32}, signing=1)
_CLUSTER, _SLOT, _GENERATION = 9, 1, 1
_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
_READY_WITHIN_S = 60
_checks: list[bytes] = []
_mounted: set[str] = set()


class Way:
    """Straight over the kernel: nobody in the middle."""

    name = "direct"
    client_host, destination = netns.DIRECT_CLIENT_HOST, (netns.DIRECT_OWNER_HOST, OWNER_PORT)
    owner_host = netns.DIRECT_OWNER_HOST
    prefix_bytes = 0  # in front of a client's payload
    rechecked = False  # whether the clients' checks go on during the load

    def __init__(self, namespaces: Namespaces) -> None:
        self.namespaces = namespaces
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Bring up what stands in the middle."""

    def dial(self, sockets: list[socket.socket]) -> list[bytes]:
        """Make a flow for each connected socket; gives the checks to repeat."""
        return []

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    @property
    def place(self) -> str:
        """The namespace of what stands in the middle."""
        return self.namespaces.relay

    def pids(self) -> list[int]:
        """The processes whose CPU is the relay's own."""
        return [process.pid for process in self.processes]

    def programs_ns(self) -> int:
        """Run time of BPF programs, where there are some."""
        return 0

    def _spawn(
        self, *command: str, environment: dict[str, str] | None = None, pinned: bool = True
    ) -> subprocess.Popen[str]:
        pin = ("taskset", "-c", RELAY_CPU) if pinned else ()
        process = subprocess.Popen(
            self.namespaces.command(self.place, *pin, *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if os.environ.get("BENCH_QUIET", "1") == "1" else None,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.processes.append(process)
        return process


class Forwarding(Way):
    """One more hop: the kernel's own IP forwarding."""

    name = "kernel forwarding"
    client_host, destination = netns.CLIENT_HOST, (netns.OWNER_HOST, OWNER_PORT)
    owner_host = netns.OWNER_HOST


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
        _until_all_answer(sockets, checks)
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


class GoRelay(Way):
    """bench/peers/gorelay: two goroutines, each locked to its thread."""

    name = "Go relay, locked threads"
    client_host, destination = netns.CLIENT_HOST, (netns.RELAY_PUBLIC_HOST, PUBLIC_PORT)
    owner_host = netns.OWNER_HOST
    flags: tuple[str, ...] = ()

    def start(self) -> None:
        process = self._spawn(
            *(str(built() / "gorelay"), "-public", f"{netns.RELAY_PUBLIC_HOST}:{PUBLIC_PORT}"),
            *("-inner", netns.RELAY_INNER_HOST, "-owner", f"{netns.OWNER_HOST}:{OWNER_PORT}", *self.flags),
        )
        assert process.stdout is not None
        process.stdout.readline()

    def dial(self, sockets: list[socket.socket]) -> list[bytes]:
        _until_all_answer(sockets, [bytes(20)] * len(sockets))
        return []


class GoRelayUnlocked(GoRelay):
    """The same, scheduled as Go likes: the cheapest of what was tried (locks, GOMAXPROCS 1, 2 and 4, batches)."""

    name = "Go relay, unlocked"
    flags = ("-lock=false", "-procs", "2")


class Coturn(Way):
    """coturn as Debian packages it: one allocation and one channel for each client, no authentication."""

    name = "coturn"
    client_host, destination = netns.CLIENT_HOST, (netns.RELAY_PUBLIC_HOST, 3490)
    owner_host = netns.OWNER_HOST
    prefix_bytes = 4

    def start(self) -> None:
        host, port = self.destination
        self._spawn(
            *("turnserver", "-n", "--no-auth", "-L", host, "-p", str(port), "-E", netns.RELAY_INNER_HOST, "-m", "1"),
            *(
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--no-tcp",
                "--no-tcp-relay",
                "--log-file",
                "/dev/null",
                "--simple-log",
            ),
            *("--min-port", "20000", "--max-port", "60000", "--pidfile", "/dev/null", "--realm", "bench"),
            *("--no-multicast-peers"),
        )
        with self.namespaces.entered(self.namespaces.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((self.client_host, 9_999))
            probe.settimeout(0.1)
            for _ in range(100):
                with contextlib.suppress(OSError):
                    probe.sendto(_turn(1), self.destination)
                    probe.recv(2048)
                    return
        raise RuntimeError("coturn does not answer")

    def dial(self, sockets: list[socket.socket]) -> list[bytes]:
        xor = struct.pack("!I", struct.unpack("!I", socket.inet_aton(netns.OWNER_HOST))[0] ^ 0x2112A442)
        peer = struct.pack("!BBH", 0, 1, OWNER_PORT ^ 0x2112) + xor
        _until_all_answer(sockets, [_turn(3, (0x19, b"\x11\0\0\0"))] * len(sockets), unique=True)
        _until_all_answer(sockets, [_turn(9, (0xC, b"\x40\0\0\0"), (0x12, peer))] * len(sockets), unique=True)
        return []


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


def built() -> Path:
    """Where the peers are built: outside of the checkout, once for each version of their sources."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "voicefleet" / "bench"


def build_peers() -> None:
    """Build load (C) and gorelay (Go). Both builds are quick when nothing changed."""
    here = Path(__file__).parent / "peers"
    built().mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-o", built() / "load", here / "load.c"], check=True)
    subprocess.run(["go", "build", "-o", built() / "gorelay", "."], check=True, cwd=here / "gorelay")


def open_sockets(namespaces: Namespaces, path: Way, count: int, first_port: int = 10_000) -> list[socket.socket]:
    """Client sockets in the client's namespace, connected to the path's destination."""
    sockets = []
    with namespaces.entered(namespaces.client):
        for number in range(count):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setblocking(False)
            one.bind((path.client_host, first_port + number))
            one.connect(path.destination)
            sockets.append(one)
    return sockets


def _until_all_answer(sockets: list[socket.socket], first: list[bytes], *, unique: bool = False) -> None:
    """Send each socket's datagram until an answer came; paced, so that no buffer overflows."""
    waiting = {one.fileno(): (one, data) for one, data in zip(sockets, first, strict=True)}
    with contextlib.closing(select.epoll()) as poll:
        for descriptor in waiting:
            poll.register(descriptor, select.EPOLLIN)
        for _ in range(20):
            for chunk in _chunks(list(waiting.values()), 100):
                for one, data in chunk:
                    one.send(data[:8] + secrets.token_bytes(12) + data[20:] if unique else data)
                _collect(poll, waiting, 0.02)
            _collect(poll, waiting, 0.3)
            if not waiting:
                return
    raise RuntimeError(f"{len(waiting)} of {len(sockets)} flows got no answer")


def _collect(poll: select.epoll, waiting: dict[int, tuple[socket.socket, bytes]], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while waiting:
        ready = poll.poll(max(0.0, deadline - time.monotonic()), 1000)
        if not ready:
            return
        for descriptor, _ in ready:
            with contextlib.suppress(OSError):
                os.read(descriptor, 2048)
            waiting.pop(descriptor, None)


def _chunks(items: list[tuple[socket.socket, bytes]], size: int) -> Iterator[list[tuple[socket.socket, bytes]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _turn(method: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4) for kind, value in attributes)
    return struct.pack("!HHI", method, len(body), 0x2112A442) + bytes(12) + body
