"""The relay process: a public UDP socket, an inner UDP socket, and health on the inner address.

Both sockets are bound with SO_REUSEPORT: the pod that replaces this one binds the same public port while this one still
leaves, and no packet meets a closed port in between. The kernel spreads flows over both for that moment; each rebuilds
a flow from the next check, which is what a relay can do at any time.

Leaving: readiness goes at once, the sockets stay for ``leave_grace_s`` and forward all the while, then close. A relay that
restarts hands over at once: it holds nothing that the next check does not rebuild.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voicefleet_contract.addresses import Address, from_kernel
from voicefleet_contract.drops import DropReason
from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay import Forward, Relay
from voicefleet_dataplane.shell.http_health import inner_app
from voicefleet_dataplane.shell.topology import Source, open_topology
from voicefleet_dataplane.shell.watched import watch_key_ring

log = logging.getLogger("voicefleet.relay")

_RECEIVE_BUFFER_BYTES = 4 << 20
_PACKETS_PER_WAKE = 64  # so that the other socket and the timers get their turn under load
_LARGEST_READ_BYTES = 2_048
_SOURCES_REMEMBERED = 65_536
_HOUSEKEEPING_INTERVAL_S = 0.5

Receive = Callable[[bytes, Address, float], Forward | DropReason]


class RelayProcess:
    """One relay. ``start`` binds, ``stop`` closes; the addresses are known in between."""

    def __init__(self, settings: RelaySettings, topology: Source) -> None:
        """Read the keys. Raises OSError or ValueError naming what is wrong."""
        self._settings, self._topology = settings, topology
        self._keys = watch_key_ring(Path(settings.hint_keys_file))
        self._leaving = False
        self._packets = [0, 0]  # in from outside, in from inside

    async def start(self) -> None:
        """Bind both sockets and the health listener, and forward from now on."""
        settings = self._settings
        self._inside = _bind(settings.inner_address, settings.inner_port)
        self.inner = from_kernel(self._inside.getsockname())
        self._outside = _bind(settings.public_address, settings.public_port)
        self.public = from_kernel(self._outside.getsockname())
        self.core = Relay(
            self.inner, self._keys.value, max_flows=settings.max_flows, idle_s=settings.flow_idle_timeout_s
        )
        self._use_topology()
        registry = CollectorRegistry()
        registry.register(_Metrics(self.core, self._packets))
        self._health = web.AppRunner(inner_app(self.problems, registry, lambda: None), access_log=None)
        await self._health.setup()
        await web.TCPSite(self._health, self.inner.host, self.inner.port).start()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._outside, self._drain, self._outside, self._inside, self.core.receive_outside, 0)
        loop.add_reader(self._inside, self._drain, self._inside, self._outside, self.core.receive_inside, 1)
        self._housekeeper = asyncio.create_task(self._keep_house())
        log.info("public %s, inner %s", self.public, self.inner)

    def problems(self) -> list[str]:
        """Return why no new call should be sent here."""
        found = ["leaving"] if self._leaving else []
        if self.core.topology is None:
            found.append(f"no topology: {self._topology.problem}")
        return found

    def leave(self) -> None:
        """Be unready from now on, and forward all the same."""
        self._leaving = True

    async def stop(self) -> None:
        """Close everything."""
        self._housekeeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._housekeeper
        loop = asyncio.get_running_loop()
        for one in (self._outside, self._inside):
            loop.remove_reader(one)
            one.close()
        await self._health.cleanup()

    def _drain(self, source: socket.socket, target: socket.socket, receive: Receive, side: int) -> None:
        """Take what has arrived on one socket, and send what the core says over the other."""
        read, send, drops, packets = source.recvfrom, _sender(target), self.core.drops, self._packets
        now = time.monotonic()
        for _ in range(_PACKETS_PER_WAKE):
            try:
                data, address = read(_LARGEST_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier send: nothing that a reader could mend
            packets[side] += 1
            verdict = receive(data, _address(address), now)
            if not isinstance(verdict, DropReason):
                try:
                    send(*verdict)
                except OSError:  # a full buffer, or no route: as on any network, the packet is lost
                    drops[DropReason.SEND_FAILED] += 1

    def _use_topology(self) -> None:
        topology = self._topology()
        if topology is not None and topology is not self.core.topology:
            self.core.set_topology(topology)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL_S)
            self._use_topology()
            if self._keys.check():
                self.core.set_keys(self._keys.value)
            self.core.advance(time.monotonic())


async def run_relay(settings: RelaySettings) -> None:
    """Run until cancelled; then leave. Raises OSError or ValueError when it cannot start."""
    async with open_topology(settings.topology, settings.namespace) as topology:
        process = RelayProcess(settings, topology)
        await process.start()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            process.leave()
            log.info("leaving in %g s", settings.leave_grace_s)
            await asyncio.sleep(settings.leave_grace_s)
        finally:
            await process.stop()


_addresses: dict[object, Address] = {}


def _address(source: tuple[str, int]) -> Address:
    known = _addresses.get(source)
    if known is None:
        if len(_addresses) >= _SOURCES_REMEMBERED:
            _addresses.clear()  # a cache: everybody is spelt once more
        known = _addresses[source] = from_kernel(source)
    return known


def _sender(target: socket.socket) -> Callable[[bytes, Address], int]:
    """Return its sendto; a dual-stack socket wants IPv4 addresses in IPv6 spelling."""
    if target.family == socket.AF_INET:
        return target.sendto
    return lambda data, to: target.sendto(data, to if ":" in to.host else ("::ffff:" + to.host, to.port))


def _bind(host: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if host == "::":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 clients too, as mapped addresses
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        raise OSError(error.errno, f"cannot bind UDP {Address(host, port)}: {error.strerror}") from None
    return one


class _Metrics(Collector):
    """The core counts; this writes it down when somebody asks."""

    def __init__(self, core: Relay, packets: list[int]) -> None:
        self._core, self._packets = core, packets

    def collect(self) -> Iterator[Metric]:
        core = self._core
        yield GaugeMetricFamily("voicefleet_relay_flows", "Flows held now", value=len(core.flows))
        yield GaugeMetricFamily("voicefleet_relay_flows_max", "Flows held at most", value=core.flows.max_flows)
        revision = core.topology.topology.revision if core.topology else 0
        yield GaugeMetricFamily("voicefleet_relay_topology_revision", "The topology in use", value=revision)
        yield CounterMetricFamily("voicefleet_relay_flows_bound", "Flows bound by a check", value=core.flows_bound)
        yield CounterMetricFamily("voicefleet_relay_flows_expired", "Flows forgotten", value=core.flows_expired)
        received = CounterMetricFamily("voicefleet_relay_packets_in", "Datagrams read, by side", labels=["side"])
        for side, count in zip(("outside", "inside"), self._packets, strict=True):
            received.add_metric([side], count)
        yield received
        drops = CounterMetricFamily("voicefleet_relay_drops", "Packets dropped, by reason", labels=["reason"])
        for reason, count in core.drops.items():
            drops.add_metric([reason.value], count)
        yield drops
