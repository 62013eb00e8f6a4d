"""The relay process: a public UDP socket, an inner UDP socket, and health on the inner address (TCP, the same number).

Owns: sockets, time, and which topology and keys the core works from. Does not own: any rule about packets
(core/relay/relay.py), how long it stays when it is told to leave (shell/relay/leaving.py).
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from voicefleet_contract.addresses import from_kernel
from voicefleet_contract.drops import DropReason
from voicefleet_contract.registry import Acknowledgement
from voicefleet_contract.settings import RelaySettings
from voicefleet_contract.spp import HEADER_BYTES
from voicefleet_dataplane.core.relay.batches import Inward, Outward
from voicefleet_dataplane.core.relay.check_limits import CheckLimits
from voicefleet_dataplane.core.relay.recovery import Recovered, Recovery
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.shell.process.acknowledger import Acknowledger, acknowledge
from voicefleet_dataplane.shell.process.health import inner_app
from voicefleet_dataplane.shell.process.redis_sink import RedisSink
from voicefleet_dataplane.shell.process.topology_source import Source, open_topology
from voicefleet_dataplane.shell.process.udp import (
    PACKETS_PER_WAKE,
    bind_pair,
    bind_udp,
    sender,
    when_free,
)
from voicefleet_dataplane.shell.process.watched_files import watch_key_ring
from voicefleet_dataplane.shell.relay.batch_socket import Messages
from voicefleet_dataplane.shell.relay.datapath import Datapath
from voicefleet_dataplane.shell.relay.flow_cache import FlowCache
from voicefleet_dataplane.shell.relay.leaving import Leaving
from voicefleet_dataplane.shell.relay.metrics import relay_registry
from voicefleet_dataplane.shell.relay.pressure import Pressure
from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, serve

log = logging.getLogger("voicefleet.relay")

_HOUSEKEEPING_INTERVAL_S = 0.5
_PREDECESSOR_PATIENCE_S = 8.0  # beyond the grace that the predecessor takes to leave
# Packets wait in the sockets' buffers for the first topology, which comes within tens of milliseconds: without one all that
# could be done with them is to drop them. An API server that is away for longer is not waited for.
_TOPOLOGY_PATIENCE_S = 2.0
_TOPOLOGY_POLL_S = 0.01


@dataclass(frozen=True)
class RelaySockets:
    """What a relay reads: the public and the inner UDP socket, and the listener of its health and metrics."""

    outside: socket.socket
    inside: socket.socket
    health: socket.socket

    def close(self) -> None:
        """Close all."""
        for one in (self.outside, self.inside, self.health):
            one.close()


class RelayProcess:
    """One relay. ``start`` binds, ``stop`` closes; the addresses are known in between."""

    def __init__(self, settings: RelaySettings, topology: Source) -> None:
        """Read the keys. Raises OSError or ValueError naming what is wrong."""
        self._settings, self._topology = settings, topology
        self._keys = watch_key_ring(Path(settings.hint_keys_file))
        self.cache: FlowCache | None = None
        self._closing = contextlib.AsyncExitStack()

    async def start(self, patience_s: float | None = None, sockets: RelaySockets | None = None) -> None:
        """Bind everything, waiting for a predecessor's ports if need be, and forward from now on. Raises OSError.

        A worker is given its sockets (shell/relay/workers.py), which outlive it.
        """
        settings = self._settings
        async with contextlib.AsyncExitStack() as closing:  # a start that fails leaves nothing open
            if sockets is None:
                sockets = await self._bind(patience(settings) if patience_s is None else patience_s)
            closing.callback(sockets.close)
            outside, inside, health = sockets.outside, sockets.inside, sockets.health
            self.inner, self.public = from_kernel(inside.getsockname()), from_kernel(outside.getsockname())
            self.core = Relay(
                self.inner,
                self._keys.value,
                max_flows=settings.max_flows,
                idle_s=settings.flow_idle_timeout_s,
                limits=_limits(settings),
            )
            self.leaving = Leaving(settings, self._topology, self.core)
            self.datapath = Datapath(settings, self.core, self.public, time.monotonic())
            closing.callback(self._close_datapath)
            self._use_sources()
            self.pressure = Pressure({"public": outside, "inner": inside})
            closing.callback(self.pressure.stop)
            self.pressure.look(0)  # what starting left is looked at now, and not while packets wait
            if settings.redis_url:
                self.cache = self._open_cache(outside, inside)
                closing.push_async_callback(self.cache.close)
            registry = relay_registry(self.core, self.stale, self.pressure, self.datapath, self.cache)
            app = inner_app(self.problems, registry, lambda: None)
            if health.family == socket.AF_UNIX:
                app.router.add_get("/acknowledgement", self._acknowledge)
            runner = await serve(app, health, "inner", Bounds(), ListenerDrops(registry))
            closing.push_async_callback(runner.cleanup)
            inward = Messages(outside, inside, read_at=HEADER_BYTES, send_from=0, count=PACKETS_PER_WAKE)
            outward = Messages(inside, outside, read_at=0, send_from=HEADER_BYTES, count=PACKETS_PER_WAKE)
            families = outside.family, inside.family
            drains = (
                (outside, self._drain(Inward(self.core, inward.batch, *families), inward)),
                (inside, self._drain(Outward(self.core, outward.batch, *reversed(families)), outward)),
            )
            for task in (asyncio.create_task(self._read(drains)), asyncio.create_task(self._keep_house())):
                closing.callback(task.cancel)
            for source, _ in drains:
                closing.callback(asyncio.get_running_loop().remove_reader, source)
            self._closing = closing.pop_all()
        log.info("public %s, inner %s", self.public, self.inner)

    async def _bind(self, patience_s: float) -> RelaySockets:
        settings = self._settings
        inside, health = await when_free(lambda: bind_pair(settings.inner_address, settings.inner_port), patience_s)
        try:
            outside = await when_free(lambda: bind_udp(settings.public_address, settings.public_port), patience_s)
        except BaseException:
            inside.close()
            health.close()
            raise
        return RelaySockets(outside, inside, health)

    def problems(self) -> list[str]:
        """Return why no new call should be sent here."""
        found = ["leaving"] if self.leaving.has_begun else []
        if self.core.topology is None:
            found.append(f"no topology: {self._topology.problem}")
        return found

    def stale(self) -> dict[str, str]:
        """Return what the relay works from, and for each why a newer one could not be read, if so."""
        cache = {} if self.cache is None else {"flow_cache": self.cache.problem}
        return {"topology": self._topology.problem, "hint_keys": self._keys.problem, **cache}

    def acknowledgement(self) -> Acknowledgement:
        """Return which topology and keys are in use."""
        said = acknowledge(self._settings.process_name, self.core.topology)
        left = len(self.core.flows) if self.leaving.withdrawn else None
        return said.model_copy(
            update={
                "key_epochs": self.core.keys.epochs,
                "flows_left": left,
                "datapath": self.datapath.mode.value,
                "datapath_reason": self.datapath.reason,
            }
        )

    async def _acknowledge(self, request: web.Request) -> web.Response:
        return web.json_response(text=self.acknowledgement().model_dump_json())

    async def stop(self) -> None:
        """Close everything."""
        await self._closing.aclose()

    async def _read(self, drains: Iterable[tuple[socket.socket, Callable[[], None]]]) -> None:
        """Take what arrives, and what has arrived since the sockets were bound, from the first topology on."""
        give_up_at = time.monotonic() + _TOPOLOGY_PATIENCE_S
        while self.core.topology is None and time.monotonic() < give_up_at:
            await asyncio.sleep(_TOPOLOGY_POLL_S)
            with contextlib.suppress(Exception):  # a source with a bug: the housekeeper says so
                self._use_sources()
        for source, drain in drains:
            asyncio.get_running_loop().add_reader(source, drain)

    def _drain(self, direction: Inward | Outward, messages: Messages) -> Callable[[], None]:
        """Return what takes a batch from one socket, and sends what the core says over the other."""
        receive, run, send, drops, clock = (
            messages.receive,
            direction.run,
            messages.send,
            self.core.drops,
            time.monotonic,
        )
        cache = self.cache

        def drain() -> None:
            lengths = receive()
            if not lengths:
                return
            start = refused = 0
            nothing = run(lengths, clock())
            if nothing and cache is not None and cache.recovery.lookups.to_ask:
                cache.ask()
            for index in nothing:
                refused += send(start, index) if index > start else 0
                start = index + 1
            refused += send(start, len(lengths))
            if refused:
                drops[DropReason.SEND_FAILED] += refused

        return drain

    def _open_cache(self, outside: socket.socket, inside: socket.socket) -> FlowCache:
        inward, outward, drops = sender(inside), sender(outside), self.core.drops

        def send(recovered: Recovered) -> None:
            for out, forwards in ((inward, recovered.inward), (outward, recovered.outward)):
                for datagram, to in forwards:
                    try:
                        out(datagram, to)
                    except OSError:
                        drops[DropReason.SEND_FAILED] += 1

        cache = FlowCache(self._settings, Recovery(self.core), send)
        cache.start()
        return cache

    def _close_datapath(self) -> None:
        """Leave the kernel's rules to a successor, unless none will come: we are withdrawn, or the topology has no such relay."""
        index = self.core.topology
        known = index is None or index.relay_at(self.inner) is not None
        self.datapath.close(keep=known and not self.leaving.withdrawn)

    def _use_sources(self) -> None:
        topology = self._topology()
        if topology is not None and topology is not self.core.topology:
            self.core.set_topology(topology)
        if self._keys.check():
            self.core.set_keys(self._keys.value)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL_S)
            try:
                self._use_sources()
            except Exception:  # a source with a bug must not stop flows from expiring
                log.exception("housekeeping: what was in use stays in use")
            try:
                await self.datapath.tend(time.monotonic())
            except Exception:  # nor must the kernel, whatever it refuses
                log.exception("datapath: what is in the kernel stays for now")
            self.core.advance(time.monotonic())
            self.pressure.look(len(self.core.flows))


def patience(settings: RelaySettings) -> float:
    """Return for how long a predecessor's ports are waited for."""
    return settings.leave_grace_s + _PREDECESSOR_PATIENCE_S


def _limits(settings: RelaySettings) -> CheckLimits:
    return CheckLimits(
        failed_checks=settings.failed_checks_per_second,
        failed_checks_of_a_network=settings.failed_checks_per_second_per_network,
        new_flows_of_a_network=settings.new_flows_per_second_per_network,
    )


async def run_relay(settings: RelaySettings, sockets: RelaySockets | None = None) -> None:
    """Run until cancelled; then leave. Raises OSError or ValueError when it cannot start.

    Who is given sockets is a worker: its supervisor speaks to the registry for all of them.
    """
    async with open_topology(settings.topology, settings.namespace) as topology, contextlib.AsyncExitStack() as closing:
        process = RelayProcess(settings, topology)
        sink = RedisSink(settings) if settings.redis_url and sockets is None else None
        if sink is not None:
            closing.push_async_callback(sink.close)
        await process.start(sockets=sockets)
        closing.push_async_callback(process.stop)
        if sink is not None:
            acknowledger = Acknowledger(settings.cluster_id, process.acknowledgement, sink)
            closing.push_async_callback(acknowledger.leave)
            reporting = asyncio.create_task(acknowledger.run())
            closing.callback(reporting.cancel)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await process.leaving.leave()
