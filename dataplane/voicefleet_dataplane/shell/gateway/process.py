"""The gateway process: two listeners, the files it watches, the topology, and a graceful end.

Stateless: any gateway answers any request. It needs a topology and its keys; Redis and the Kubernetes API may be away.

Leaving: readiness goes first and the listener stays for ``leave_grace_s``, so that load balancers stop sending before
connections are refused; then requests in progress are finished.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from voicefleet_contract.ephemeral_keys import MAX_KEY_CHARS
from voicefleet_contract.networks import parse_networks
from voicefleet_contract.registry import Acknowledgement
from voicefleet_contract.settings import GatewaySettings
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.shell.gateway.admission import Admission
from voicefleet_dataplane.shell.gateway.api.calls import RealtimeCalls
from voicefleet_dataplane.shell.gateway.api.client_secrets import ClientSecrets
from voicefleet_dataplane.shell.gateway.api.errors import api_errors
from voicefleet_dataplane.shell.gateway.api.fleet import FleetApi, Registry
from voicefleet_dataplane.shell.gateway.api.health import PublicHealth, topology_problems
from voicefleet_dataplane.shell.gateway.api.openapi import Interface, OpenApi
from voicefleet_dataplane.shell.gateway.api.page import Page
from voicefleet_dataplane.shell.gateway.api.sideband import Sideband
from voicefleet_dataplane.shell.gateway.api.small_webrtc import SmallWebRtc
from voicefleet_dataplane.shell.gateway.api.whep import Whep
from voicefleet_dataplane.shell.gateway.api.whip import Whip
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer
from voicefleet_dataplane.shell.gateway.control_client import ControlClient, client_context
from voicefleet_dataplane.shell.gateway.files import watch_api_keys, watch_https, watch_places
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.process.acknowledger import Acknowledger, acknowledge
from voicefleet_dataplane.shell.process.health import inner_app
from voicefleet_dataplane.shell.process.redis_sink import RedisSink
from voicefleet_dataplane.shell.process.topology_source import open_topology
from voicefleet_dataplane.shell.process.tracing import open_tracer
from voicefleet_dataplane.shell.process.watched_files import Watched, watch_inner_tls, watch_key_ring
from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, bind_tcp, serve

log = logging.getLogger("voicefleet.gateway")

_FILE_CHECK_INTERVAL_S = 2.0
_MAX_HEAD_BYTES = MAX_KEY_CHARS + 8 * 1024  # an ephemeral key carries a session, in one header line
_FINISH_TIMEOUT_S = 30.0  # for requests in progress: longer than a walk over silent members


class Gateway:
    """One gateway. ``start`` binds, ``stop`` leaves gracefully; ports are known in between."""

    def __init__(
        self,
        settings: GatewaySettings,
        topology: Callable[[], TopologyIndex | None],
        registry: Registry | None = None,
    ) -> None:
        """Read every file. Raises OSError, ValueError or ssl.SSLError naming what is wrong."""
        self._settings, self._topology, self._registry = settings, topology, registry
        self._metrics = GatewayMetrics()
        self._drops = ListenerDrops(self._metrics.registry)
        self._api_keys = watch_api_keys(Path(settings.api_keys_dir))
        self._call_keys = watch_key_ring(Path(settings.call_keys_file))
        self._inner_tls = watch_inner_tls(Path(settings.tls_dir), client_context)
        self._https = watch_https(Path(settings.https_dir)) if settings.https_dir else None
        self._places = watch_places(Path(settings.geo_database) if settings.geo_database else None)
        self._tracer = open_tracer(
            settings.otlp_endpoint, "voicefleet-gateway", {"k8s.pod.name": settings.process_name}
        )
        self._leaving = False
        self._runners: list[web.AppRunner] = []
        self._closing_clients: set[asyncio.Task[None]] = set()
        self.public_port = self.inner_port = 0

    async def start(self) -> None:
        """Bind both listeners and begin to serve."""
        settings = self._settings
        self._control = ControlClient(self._inner_tls.value, settings.owner_timeout_s)
        admission = Admission(settings, self._api_keys, self._call_keys, self._metrics)
        viewers = frozenset(name.strip() for name in settings.fleet_view_keys.split(",") if name.strip())
        self._fleet = FleetApi(admission, self._topology, self._registry, viewers)
        self._placer = CallPlacer(
            settings,
            admission,
            topology=self._topology,
            client=lambda: self._control,
            call_keys=self._call_keys,
            places=self._places,
            metrics=self._metrics,
            tracer=self._tracer,
        )
        self._sideband = Sideband(settings, self._placer, self._metrics)
        inner = inner_app(self.problems, self._metrics.registry, self._before_metrics)
        context = self._https.value if self._https else None
        inside = bind_tcp(settings.inner_address, settings.inner_port)
        self.inner_port = await self._listen("inner", inner, inside, Bounds(), None)
        outside = bind_tcp(settings.public_address, settings.public_port)
        self.public_port = await self._listen("public", self._public_app(), outside, _bounds(settings), context)
        self._watcher = asyncio.create_task(self._watch_files())

    def problems(self) -> list[str]:
        """Return why a call could not be placed now."""
        found = topology_problems(self._topology(), self._settings.pool)
        if not len(self._api_keys.value) and not self._settings.allow_anonymous_calls:
            found.append(f"no API key in {self._settings.api_keys_dir}: every call is refused")
        if self._leaving:
            found.append("leaving")
        return found

    def acknowledgement(self) -> Acknowledgement:
        """Return which topology and keys are in use."""
        said = acknowledge(self._settings.process_name, self._topology())
        keys = self._call_keys.value
        return said.model_copy(update={"call_key_epochs": keys.epochs, "call_signing_epoch": keys.signing})

    async def stop(self, grace_s: float | None = None) -> None:
        """Leave: unready at once, deaf after the grace, gone when requests in progress are answered."""
        self._leaving = True
        await asyncio.sleep(self._settings.leave_grace_s if grace_s is None else grace_s)
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        self._sideband.leave()
        for runner in reversed(self._runners):
            await runner.cleanup()
        await self._placer.walk.close(_FINISH_TIMEOUT_S)
        await self._control.close()
        await asyncio.to_thread(self._tracer.close)

    def _public_app(self) -> web.Application:
        # http_bodies reads bodies and knows each one's size; aiohttp's own limit is the last resort.
        app = web.Application(middlewares=[api_errors], client_max_size=1)
        ice_servers = tuple(filter(None, map(str.strip, self._settings.ice_servers.split(","))))
        interfaces: tuple[Interface, ...] = (
            RealtimeCalls(self._placer),
            ClientSecrets(self._placer.admission, self._call_keys, self._metrics),
            self._sideband,
            self._fleet,
            *([Page()] if self._settings.page else ()),
            Whip(self._placer, ice_servers),
            Whep(self._placer, ice_servers),
            SmallWebRtc(self._placer),
            PublicHealth(self.problems),
        )
        for interface in (*interfaces, OpenApi(interfaces)):
            interface.add_routes(app.router)
        return app

    async def _listen(
        self, name: str, app: web.Application, listening: socket.socket, bounds: Bounds, context: ssl.SSLContext | None
    ) -> int:
        options = {"shutdown_timeout": _FINISH_TIMEOUT_S}
        self._runners.append(await serve(app, listening, name, bounds, self._drops, context, **options))
        return int(listening.getsockname()[1])

    async def _watch_files(self) -> None:
        watched: list[Watched[Any]] = [self._api_keys, self._call_keys, self._places]
        if self._https:
            watched.append(self._https)
        while True:
            await asyncio.sleep(_FILE_CHECK_INTERVAL_S)
            for one in watched:
                one.check()
            if self._inner_tls.check():  # a context cannot be changed under open connections: a new client
                old, self._control = self._control, ControlClient(self._inner_tls.value, self._settings.owner_timeout_s)
                task = asyncio.create_task(self._close_later(old))
                self._closing_clients.add(task)
                task.add_done_callback(self._closing_clients.discard)

    async def _close_later(self, client: ControlClient) -> None:
        await asyncio.sleep(_FINISH_TIMEOUT_S)
        await client.close()

    def _before_metrics(self) -> None:
        self._metrics.ready.set(0 if self.problems() else 1)
        self._metrics.imbalance.clear()  # of pools that are no more
        index = self._topology()
        for pool, found in self._placer.walk.imbalances(index).items() if index is not None else ():
            self._metrics.imbalance.labels(pool).set(found)


def _bounds(settings: GatewaySettings) -> Bounds:
    limit_s = settings.unfinished_timeout_s
    return Bounds(
        connections=settings.max_unproved_connections,
        connections_of_address=settings.max_unproved_connections_per_client,
        max_head_bytes=_MAX_HEAD_BYTES,
        handshake_s=limit_s,
        head_s=limit_s,
        body_s=2 * limit_s,
        reader_s=2 * limit_s,
        proxy_networks=parse_networks(settings.proxy_protocol_from),
        forwarder_networks=parse_networks(settings.trusted_forwarders),
    )


async def run_gateway(settings: GatewaySettings) -> None:
    """Run until cancelled; then leave gracefully. Raises OSError, ValueError or ssl.SSLError when it cannot start."""
    async with open_topology(settings.topology, settings.namespace) as topology, contextlib.AsyncExitStack() as closing:
        sink = RedisSink(settings) if settings.redis_url else None
        if sink is not None:
            closing.push_async_callback(sink.close)
        gateway = Gateway(settings, topology, sink)
        await gateway.start()
        closing.push_async_callback(gateway.stop)
        if sink is not None:
            acknowledger = Acknowledger(settings.cluster_id, gateway.acknowledgement, sink)
            closing.push_async_callback(acknowledger.leave)
            reporting = asyncio.create_task(acknowledger.run())
            closing.callback(reporting.cancel)
        log.info("serves callers on port %d, health and metrics on port %d", gateway.public_port, gateway.inner_port)
        await asyncio.Event().wait()
