"""The transceiver process: one slot, one port number (UDP for media, TCP for the control API).

It needs its keys and a topology. Redis, the Kubernetes API and the operator may be away: calls in progress go on, and new
ones are taken for as long as somebody brings them (fail static).

Leaving: new calls are refused at once, calls in progress may end by themselves until the drain deadline, then they are hung
up one after the other. A second cancellation ends the process at once.

Owns: starting, housekeeping, draining, stopping. Does not own: what is asked about calls (running_calls.py), what is written of
them (call_trace.py).
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from voicefleet_contract.http_api import DrainOrder
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import MemberState, TopologyIndex
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity, build_certificate
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.srtp import AES_128_GCM, AES_256_GCM, PROFILES
from voicefleet_dataplane.core.transceiver.calls import Place
from voicefleet_dataplane.core.transceiver.leaving import HANG_UPS_TAKE_S
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.shell.process.records import RecordSink
from voicefleet_dataplane.shell.process.redis_sink import RedisSink
from voicefleet_dataplane.shell.process.topology_source import open_topology
from voicefleet_dataplane.shell.process.udp import ANY_PORT_ATTEMPTS
from voicefleet_dataplane.shell.process.watched_files import Watched, watch_inner_tls, watch_key_ring
from voicefleet_dataplane.shell.transceiver.backends import Backends
from voicefleet_dataplane.shell.transceiver.call_records import CallRecords
from voicefleet_dataplane.shell.transceiver.call_trace import CallTrace
from voicefleet_dataplane.shell.transceiver.control_api import (
    ControlRefusal,
    build_app,
    build_server_context,
    load_certificates,
)
from voicefleet_dataplane.shell.transceiver.media_socket import MediaSocket
from voicefleet_dataplane.shell.transceiver.metrics import TransceiverMetrics
from voicefleet_dataplane.shell.transceiver.reporter import Reporter
from voicefleet_dataplane.shell.transceiver.running_calls import RunningCalls
from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, bind_tcp, serve

log = logging.getLogger("voicefleet.transceiver")

_HOUSEKEEPING_INTERVAL_S = 1.0
_RTT_SAMPLE_EVERY = 5  # of these intervals: RTCP brings a round-trip time about as often
_CERTIFICATE_DAYS = 365  # browsers look at the fingerprint, not at the dates; a process may live long
_FINISH_TIMEOUT_S = 2.0
LAST_WORDS_S = 2.0  # who was hung up checks once more whether there is consent, and is told that there is none


class TransceiverProcess(RunningCalls):
    """One transceiver. `start` binds, `drain` waits for the calls, `stop` ends; several may live in one process."""

    def __init__(
        self,
        settings: TransceiverSettings,
        topology: Callable[[], TopologyIndex | None],
        sink: RecordSink | None = None,
    ) -> None:
        """Read every file. Raises OSError, ValueError or ssl.SSLError naming what is wrong.

        `topology` gives the last good one and is asked every second; without `sink` no registry is told anything.
        """
        self._topology = topology
        self._topology_in_use: TopologyIndex | None = None
        self._hint_keys = watch_key_ring(Path(settings.hint_keys_file))
        self._call_keys = watch_key_ring(Path(settings.call_keys_file))
        self._refused = dict.fromkeys(ControlRefusal, 0)
        self._context: ssl.SSLContext | None = None
        self._tls = watch_inner_tls(Path(settings.tls_dir), self._load_tls)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = build_certificate(
            key, x509.random_serial_number(), dt.datetime.now(dt.UTC), days=_CERTIFICATE_DAYS
        )
        profiles = (AES_128_GCM, AES_256_GCM) if settings.srtp_profiles == "gcm" else PROFILES
        core = Transceiver(
            Place(
                cluster=settings.cluster_id,
                slot=settings.slot,
                generation=settings.generation,
                capacity=settings.capacity,
                accept_direct=settings.accept_direct,
                inner_host=settings.inner_address,
                prefer_active=settings.dtls_role == "active",
            ),
            DtlsIdentity(key, certificate, profiles),
            self._hint_keys.value,
            self._call_keys.value,
            Limits(
                setup_s=settings.setup_timeout_s,
                idle_s=settings.idle_timeout_s,
                duration_s=settings.max_duration_s,
            ),
            secrets.token_bytes,
            time.time() - time.monotonic(),
        )
        self._backends = Backends(settings)
        self._records = CallRecords(settings)
        self._metrics = TransceiverMetrics(
            settings.pool,
            core,
            lambda: self.socket.packets_out,
            self._refused,
            self._records.counts,
            self._backends.counts,
        )
        trace = CallTrace(settings, lambda: self._topology_in_use, self._records, self._metrics)
        super().__init__(settings, core, self._backends.make, trace, self._refused)
        self._reporter = Reporter(settings, core, lambda: self._topology_in_use, sink) if sink is not None else None
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    # ---- life

    async def start(self) -> None:
        """Bind UDP, then TCP of the same number: whoever can connect finds a transceiver that can serve."""
        await self._backends.start()
        settings = self._settings
        for attempt in range(ANY_PORT_ATTEMPTS):
            self.socket = MediaSocket(self.core, settings.inner_address, settings.port)
            self.port = self.socket.address.port
            try:
                listening = bind_tcp(settings.inner_address, self.port)
                break
            except OSError:
                self.socket.discard()
                if settings.port or attempt == ANY_PORT_ATTEMPTS - 1:  # one of the kernel's choice may be taken on TCP
                    raise
        app, drops = build_app(self, self._refused), ListenerDrops(self._metrics.registry)
        options = {"shutdown_timeout": _FINISH_TIMEOUT_S, "handle_signals": False}
        self._runner = await serve(app, listening, "control", Bounds(), drops, self._tls.value, **options)
        self.socket.start()
        self._records.start()
        self._use_topology()
        self._tasks.append(asyncio.create_task(self._keep_house()))
        if self._reporter is not None:
            self._tasks.append(asyncio.create_task(self._reporter.run()))
        log.info(
            "slot %d generation %d of pool %s serves on %s",
            settings.slot,
            settings.generation,
            settings.pool,
            self.socket.address,
        )

    async def wait_drained(self, deadline_s: float) -> None:
        """Refuse new calls, and wait until the last one has ended, by itself or hung up at the deadline."""
        # An earlier moment that the operator said stays.
        ordered_s = self.core.calls.leaving.hang_up_at - time.monotonic()
        self.drain(DrainOrder(hang_up_after_s=max(0.0, min(deadline_s, ordered_s))))
        if self.calls:
            log.info("draining: %d calls, at most %g s", len(self.calls), deadline_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s + HANG_UPS_TAKE_S + _FINISH_TIMEOUT_S):
                    await self._empty.wait()
            if self.core.calls.tally.ended[EndReason.DRAIN_DEADLINE]:
                await asyncio.sleep(LAST_WORDS_S)

    async def stop(self) -> None:
        """Hang up what is left and close."""
        self.core.calls.state = MemberState.GONE
        for call in list(self.calls.values()):
            call.session.end(EndReason.DRAIN_DEADLINE)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self._backends.close()
        self._clock.close()
        self._codec.close()
        self.socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._reporter is not None:
            await self._reporter.leave()
        await self._records.close()
        await self._trace.close()

    # ---- what the control API asks of the process

    def drain(self, order: DrainOrder) -> None:
        """Take no new calls from now on, and hang up when the order says."""
        after_s = order.hang_up_after_s
        self.core.calls.drain(None if after_s is None else time.monotonic() + after_s)
        self.socket.wake()  # its timers
        if not self.calls:
            self._empty.set()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return self._metrics.write(accept)

    # ---- inside

    def _load_tls(self, directory: Path) -> ssl.SSLContext:
        # One context for ever: connections of the future use what was loaded into it last.
        if self._context is None:
            self._context = build_server_context(directory, self._refused)
        return load_certificates(self._context, directory)

    def _use_topology(self) -> None:
        topology = self._topology()
        if topology is not None and topology is not self._topology_in_use:
            self._topology_in_use = topology
            self.core.set_topology(topology)
            self._hear_of_the_fence(topology)
        if self.core.calls.state is MemberState.STARTING and (topology is not None or self._settings.accept_direct):
            self.core.calls.state = MemberState.ACTIVE

    def _hear_of_the_fence(self, topology: TopologyIndex) -> None:
        """Leave when the topology says so, in case that the operator's order never comes; a fence is never taken back."""
        place, serving = self.core.place, self.core.calls.state in (MemberState.STARTING, MemberState.ACTIVE)
        member = topology.member(place.slot, place.generation)
        if serving and member is not None and member.state is MemberState.DRAINING:
            self.drain(DrainOrder(hang_up_after_s=self._settings.drain_deadline_s))

    async def _keep_house(self) -> None:
        watched: list[Watched[Any]] = [self._hint_keys, self._call_keys, self._tls]
        for second in itertools.count(1):
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL_S)
            self._use_topology()
            self._trace.end_set_ups(self.calls)
            if second % _RTT_SAMPLE_EVERY == 0:
                self._metrics.sample()
            for one in watched:
                one.check()
            self._backends.check_key()
            self.core.calls.hint_keys = self._hint_keys.value
            self.core.calls.call_keys = self._call_keys.value


async def run_transceiver(settings: TransceiverSettings) -> None:
    """Run until cancelled; then drain, and end. Raises OSError, ValueError or ssl.SSLError when it cannot start."""
    sink = RedisSink(settings) if settings.redis_url else None
    async with open_topology(settings.topology, settings.namespace) as topology:
        process = TransceiverProcess(settings, topology, sink)
        await process.start()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await process.wait_drained(settings.drain_deadline_s)
        finally:
            await process.stop()
            if sink is not None:
                await sink.close()
