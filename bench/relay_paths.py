"""The ways that a packet can go in bench/relay.py, but for ours: each starts what stands in the middle, and makes its flows from outside.

Every path is given what its kind needs and no more: ours (bench/relay_ours.py) gets authenticated checks, the Go stand-in makes a flow of
the first datagram, coturn gets an allocation and a channel for each client. What all share: one process pinned to one core, 4 MiB of
receive buffer where it lets one choose, the same sockets and the same echo at the far end.
"""

import contextlib
import os
import socket
import struct
import subprocess

from bench import netns
from bench.netns import Namespaces
from bench.peers import built
from bench.relay_dial import until_all_answer

OWNER_PORT, PUBLIC_PORT = 7000, 3478
_RELAY_CPU = "1"


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
        pin = ("taskset", "-c", _RELAY_CPU) if pinned else ()
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
        until_all_answer(sockets, [bytes(20)] * len(sockets))
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
        until_all_answer(sockets, [_turn(3, (0x19, b"\x11\0\0\0"))] * len(sockets), unique=True)
        until_all_answer(sockets, [_turn(9, (0xC, b"\x40\0\0\0"), (0x12, peer))] * len(sockets), unique=True)
        return []


def _turn(method: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4) for kind, value in attributes)
    return struct.pack("!HHI", method, len(body), 0x2112A442) + bytes(12) + body
