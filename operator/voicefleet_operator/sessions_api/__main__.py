"""The process of the sessions API: settings, certificates, the registry, two listeners, until told to stop.

It takes its APIService away when its namespace is being deleted: an APIService whose server is gone would hold up that
deletion, and every other namespace's.
"""

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from voicefleet_contract import names
from voicefleet_contract.release import release
from voicefleet_contract.settings import SessionsApiSettings, SettingsError
from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, bind_tcp, serve
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.redis_client import connect
from voicefleet_operator.cluster.transceivers import client_context
from voicefleet_operator.sessions_api.access import Authorizer, FrontProxy
from voicefleet_operator.sessions_api.external_metrics import pool_loads
from voicefleet_operator.sessions_api.hangup import HangUps
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.lost_slots import forget_lost_slots
from voicefleet_operator.sessions_api.metrics import Metrics
from voicefleet_operator.sessions_api.registry import RegistryAwayError, SessionRegistry
from voicefleet_operator.sessions_api.server import SessionsApi

log = logging.getLogger("voicefleet.sessions")

_NAMESPACE_LOOK_S = 1.0  # the namespace controller waits five seconds before it deletes what is in a namespace
_REREAD_S = 30.0
_LEAVE_S = 3.0
_BOUNDS = Bounds(max_head_bytes=64 * 1024)  # the front proxy names all groups of a user


def main() -> None:
    """Run the sessions API. Exits 2 for wrong settings, 1 when it cannot run."""
    if "--help" in sys.argv[1:]:
        print(__doc__)
        return
    if "--version" in sys.argv[1:]:
        print(f"voicefleet-sessions-api {release()}")
        return
    try:
        settings = SessionsApiSettings.from_environment(os.environ)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    log.info("voicefleet-sessions-api %s", release())
    try:
        asyncio.run(run_sessions_api(settings))
    except (KubeError, OSError, ValueError) as error:
        log.error("cannot run: %s", error)
        sys.exit(1)


class Certificates:
    """Our certificate as kube-apiserver and transceivers see it, and the front proxy's CA; read again when they change."""

    def __init__(self, api: KubeApi, tls_dir: Path) -> None:
        self._api, self._dir = api.elsewhere("kube-system"), tls_dir
        self._stamp = 0
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.verify_mode = ssl.CERT_OPTIONAL
        self.client: ssl.SSLContext
        self.front_proxy: FrontProxy

    async def read(self) -> None:
        """Read both. Raises OSError, ssl.SSLError, KubeError, ValueError."""
        stamp = (self._dir / names.TLS_CERT_FILE).stat().st_mtime_ns
        if stamp != self._stamp:
            self.server.load_cert_chain(self._dir / names.TLS_CERT_FILE, self._dir / names.TLS_KEY_FILE)
            self.client, self._stamp = client_context(self._dir), stamp
        found = await self._api.get("ConfigMap", "extension-apiserver-authentication")
        front_proxy = FrontProxy.parse((found or {}).get("data") or {})
        self.server.load_verify_locations(cadata=front_proxy.ca)
        self.front_proxy = front_proxy

    async def keep(self) -> None:
        """Read again for ever; what cannot be read now was read before."""
        while True:
            await asyncio.sleep(_REREAD_S)
            try:
                await self.read()
            except (OSError, ValueError, KubeError) as error:
                log.error("certificates: %s; the ones read before stay in use", error)


async def run_sessions_api(settings: SessionsApiSettings) -> None:
    """Run until a signal. Raises KubeError, OSError, ValueError at start."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as closing:
        api = await KubeApi.connect(settings.namespace, settings.kubeconfig)
        closing.push_async_callback(api.close)
        client = connect(settings.redis_url, settings.redis_password_file) if settings.redis_url else None
        if client is not None:
            closing.push_async_callback(client.aclose)
        certificates = Certificates(api, Path(settings.tls_dir))
        await certificates.read()
        registry = SessionRegistry(client, settings.cluster_id)
        hub = Hub(registry)
        metrics = Metrics(registry, hub)
        sessions = SessionsApi(
            settings.namespace,
            registry,
            hub,
            lambda: certificates.front_proxy,
            Authorizer(api),
            HangUps(api, settings.cluster_id, lambda: certificates.client),
            metrics,
        )
        drops = ListenerDrops(metrics.registry)
        listening = bind_tcp(settings.address, settings.port)
        options = {"handler_cancellation": True, "shutdown_timeout": _LEAVE_S, "handle_signals": False}
        runner = await serve(sessions.build(), listening, "api", _BOUNDS, drops, certificates.server, **options)
        closing.push_async_callback(runner.cleanup)
        leaving = asyncio.Event()
        listening, app = bind_tcp(settings.health_address, settings.health_port), _health(metrics, registry, leaving)
        health = await serve(app, listening, "health", Bounds(), drops, handle_signals=False)
        closing.push_async_callback(health.cleanup)
        log.info("serves sessions of namespace %s, cluster id %d", settings.namespace, settings.cluster_id)
        for work in (
            hub.run(),
            certificates.keep(),
            forget_lost_slots(registry, settings.cluster_id),
            _follow_namespace(api),
        ):
            task = asyncio.create_task(work)
            closing.callback(task.cancel)
        await stop.wait()
        leaving.set()
        await asyncio.sleep(_LEAVE_S)  # kube-apiserver has other addresses by then


def _health(metrics: Metrics, registry: SessionRegistry, leaving: asyncio.Event) -> web.Application:
    async def alive(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(request: web.Request) -> web.Response:
        # A registry that is away is no reason to be unready: the APIService must stay Available.
        return web.Response(status=503, text="leaving\n") if leaving.is_set() else web.Response(text="ok\n")

    async def exposition(request: web.Request) -> web.Response:
        with contextlib.suppress(RegistryAwayError):  # then the last numbers stand, beside `registry_away`
            metrics.show_pools(pool_loads(await registry.slots()))
        return metrics.write()

    app = web.Application()
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", exposition)
    return app


async def _follow_namespace(api: KubeApi) -> None:
    """Take our APIService away when our namespace is being deleted."""
    while True:
        await asyncio.sleep(_NAMESPACE_LOOK_S)
        with contextlib.suppress(KubeError):
            namespace = await api.get("Namespace", api.namespace)
            if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
                continue
            for name in (names.SESSIONS_API_SERVICE, names.EXTERNAL_METRICS_API_SERVICE):
                service = await api.get("APIService", name)
                if service is not None and (service["spec"].get("service") or {}).get("namespace") == api.namespace:
                    await api.delete("APIService", name, uid=service["metadata"]["uid"])
                    log.warning("namespace %s is being deleted: APIService %s taken away", api.namespace, name)


if __name__ == "__main__":
    main()
