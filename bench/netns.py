"""Network namespaces for benches and kernel tests: made at entry, gone at exit, whatever happens in between.

::

    client ns ── veth 10.1.0.2/10.1.0.1 ── relay ns ── veth 10.2.0.1/10.2.0.2 ── owner ns
        ├──────────────── veth 10.3.0.2/10.3.0.1 (direct) ───────────────────────┤
        └─ veth, no address ──── 10.1.0.1 ── second relay ns ── veth 10.4.0.1/10.4.0.2 ─┘

The second relay has the first one's public address; `move` sends the client's packets there, as a router would.

Needs root, iproute2 and util-linux. Owns: namespaces and links. Does not own: what runs in them.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

CLIENT_HOST, RELAY_PUBLIC_HOST, RELAY_INNER_HOST, OWNER_HOST = "10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2"
SECOND_INNER_HOST, SECOND_OWNER_HOST = "10.4.0.1", "10.4.0.2"
DIRECT_CLIENT_HOST, DIRECT_OWNER_HOST = "10.3.0.2", "10.3.0.1"


class Namespaces:
    """Three namespaces with names of this process, so that two runs do not meet."""

    def __init__(self, prefix: str = "vf") -> None:
        self.client, self.relay, self.owner, self.second = (f"{prefix}{os.getpid()}{end}" for end in "cros")
        self._all = (self.client, self.relay, self.owner, self.second)

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise PermissionError("this bench makes network namespaces: run it as root")
        try:
            for name in self._all:
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            self._link(self.client, "toward", CLIENT_HOST, self.relay, "outside", RELAY_PUBLIC_HOST)
            self._link(self.relay, "inside", RELAY_INNER_HOST, self.owner, "back", OWNER_HOST)
            self._link(self.client, "direct", DIRECT_CLIENT_HOST, self.owner, "direct", DIRECT_OWNER_HOST)
            self._link(self.client, "toward2", "", self.second, "outside", RELAY_PUBLIC_HOST)
            self._link(self.second, "inside", SECOND_INNER_HOST, self.owner, "back2", SECOND_OWNER_HOST)
            _ip("-n", self.second, "route", "add", "10.2.0.0/24", "via", SECOND_OWNER_HOST)
            _ip("-n", self.client, "route", "add", "10.2.0.0/24", "via", RELAY_PUBLIC_HOST)
            _ip("-n", self.owner, "route", "add", "10.1.0.0/24", "via", RELAY_INNER_HOST)
            self.run(self.relay, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            for name in self._all:  # ten thousand callers on one address
                self.run(name, "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in self._all:
            for pid in _ip("netns", "pids", name, check=False).split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
            _ip("netns", "del", name, check=False)

    def move(self, *, to_second: bool) -> None:
        """Send what goes to the public address to the second relay, or to the first one again."""
        device = "toward2" if to_second else "toward"
        route = f"{RELAY_PUBLIC_HOST}/32 dev {device} src {CLIENT_HOST}".split()
        _ip("-n", self.client, "route", "replace", *route)

    def command(self, name: str, *command: str) -> list[str]:
        """Return the command that runs a command in a namespace, as its own process (no shell, no wrapper left)."""
        return ["nsenter", f"--net=/run/netns/{name}", *command]

    def run(self, name: str, *command: str) -> str:
        """Run to the end. Raises CalledProcessError."""
        return subprocess.run(self.command(name, *command), check=True, capture_output=True, text=True).stdout

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Sockets that this thread makes inside are the namespace's."""
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{name}").open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def _link(
        self, left: str, left_device: str, left_host: str, right: str, right_device: str, right_host: str
    ) -> None:
        _ip("link", "add", left_device, "netns", left, "type", "veth", "peer", "name", right_device, "netns", right)
        for name, device, host in ((left, left_device, left_host), (right, right_device, right_host)):
            if host:
                _ip("-n", name, "addr", "add", f"{host}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True).stdout
