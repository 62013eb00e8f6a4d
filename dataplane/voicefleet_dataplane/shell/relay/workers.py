"""A relay of several processes: one supervisor that owns the sockets, and workers that each are a relay of their own.

::

    clients ──▶ public port ──(kernel: by address)──▶ worker 0 ──▶ owners     inner port + 0
                                                  └─▶ worker 1 ──▶ owners     inner port + 1

The kernel spreads clients over the workers' public sockets by their address, so a client's flow is in one worker.
Each worker has an inner socket of its own, whose address stands in its SPP headers: what owners send comes back to
the same worker.

The sockets live in the supervisor. A worker that dies is started again on the same ones: nobody's clients move to another
worker, and what arrived meanwhile waits in the queue. Its flows come back as they do after any relay's restart.

Workers are separate programs and not forks: a supervisor that forks beside a running loop inherits its trouble.

Owns: sockets, the workers' lives, and one answer for all of them on the inner listener (health, metrics,
acknowledgement). Does not own: packets (shell/relay/process.py, in each worker).
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from voicefleet_contract.addresses import from_kernel
from voicefleet_contract.outside import parse_integer, parse_model
from voicefleet_contract.registry import HEARTBEAT_INTERVAL_S, MAX_RECORD_BYTES, Acknowledgement
from voicefleet_contract.settings import PREFIX, RelaySettings
from voicefleet_dataplane.shell.process.acknowledger import Acknowledger
from voicefleet_dataplane.shell.process.redis_sink import RedisSink
from voicefleet_dataplane.shell.process.udp import bind_pair, bind_shared, bind_udp, when_free
from voicefleet_dataplane.shell.relay.process import RelaySockets, patience
from voicefleet_listener.bounds import Bounds
from voicefleet_listener.listener import ListenerDrops, serve

log = logging.getLogger("voicefleet.relay")

PROGRAM = "voicefleet_dataplane.commands.relay_worker"
_RESTART_PAUSES_S = (0.0, 0.1, 0.5, 2.0)  # longer while a worker does not come up
_ANSWER_WITHIN_S = 2.0


class RelayWorkers:
    """The supervisor. ``start`` binds and starts everything, ``leave`` lets the workers leave, ``stop`` closes."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._registry = CollectorRegistry()  # of the supervisor itself
        self._workers: list[_Worker] = []
        self._leaving = False
        self._closing = contextlib.AsyncExitStack()

    async def start(self, patience_s: float | None = None) -> None:
        """Bind everything, waiting for a predecessor's ports if need be, and start the workers. Raises OSError."""
        settings = self._settings
        waiting_s = patience(settings) if patience_s is None else patience_s
        async with contextlib.AsyncExitStack() as closing:
            first, health = await when_free(lambda: bind_pair(settings.inner_address, settings.inner_port), waiting_s)
            insides = [first]
            closing.callback(first.close)
            closing.callback(health.close)
            self.inner = from_kernel(health.getsockname())
            for index in range(1, settings.workers):
                insides.append(
                    await when_free(
                        lambda port=self.inner.port + index: bind_udp(settings.inner_address, port),  # type: ignore[misc]
                        waiting_s,
                    )
                )
                closing.callback(insides[-1].close)
            outsides, lock = await when_free(
                lambda: bind_shared(settings.public_address, settings.public_port, settings.workers), waiting_s
            )
            self.public = from_kernel(outsides[0].getsockname())
            for one in (lock, *outsides):
                closing.callback(one.close)
            for index, (outside, inside) in enumerate(zip(outsides, insides, strict=True)):
                sockets = RelaySockets(outside, inside, _listener(self.public.port, index))
                closing.callback(sockets.health.close)
                self._workers.append(_Worker(index, worker_settings(settings, index), sockets))
            runner = await serve(self._app(), health, "inner", Bounds(), ListenerDrops(self._registry))
            closing.push_async_callback(runner.cleanup)
            for worker in self._workers:
                keeping = asyncio.create_task(worker.keep())
                closing.callback(keeping.cancel)
                closing.callback(worker.kill)
            self._closing = closing.pop_all()
        log.info("public %s, inner %s, %d workers", self.public, self.inner, settings.workers)

    async def leave(self) -> None:
        """Let every worker leave in its own way, and wait for them."""
        self._leaving = True
        for worker in self._workers:
            worker.leave()
        await asyncio.gather(*(worker.gone.wait() for worker in self._workers))

    async def stop(self) -> None:
        """Close everything."""
        await self._closing.aclose()

    async def problems(self) -> list[str]:
        """Return why no new call should be sent here."""
        found = ["leaving"] if self._leaving else []
        answers = await asyncio.gather(*(worker.get("/readyz") for worker in self._workers))
        for worker, answer in zip(self._workers, answers, strict=True):
            if answer is None:
                found.append(f"worker {worker.index} does not answer: {worker.problem}")
            elif answer[0] != 200:
                found.append(f"worker {worker.index}: {answer[1].strip()}")
        return found

    async def acknowledgement(self) -> Acknowledgement | None:
        """Return what all workers work with; None while one does not say."""
        answers = await asyncio.gather(*(worker.get("/acknowledgement") for worker in self._workers))
        said = [
            parse_model(Acknowledgement, answer[1], MAX_RECORD_BYTES)
            for answer in answers
            if answer and answer[0] == 200
        ]
        if len(said) < len(self._workers):
            return None
        return common(self._settings.process_name, said)

    def _app(self) -> web.Application:
        async def alive(request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(request: web.Request) -> web.Response:
            found = await self.problems()
            if found:
                return web.Response(status=503, text="".join(f"{problem}\n" for problem in found))
            return web.Response(text="ready\n")

        async def metrics(request: web.Request) -> web.Response:
            answers = await asyncio.gather(*(worker.get("/metrics") for worker in self._workers))
            registry = CollectorRegistry()
            texts = {
                str(worker.index): said[1] if said else "" for worker, said in zip(self._workers, answers, strict=True)
            }
            texts["supervisor"] = generate_latest(self._registry).decode()
            registry.register(_Merged(texts, self._workers))
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        app = web.Application()
        app.router.add_get("/healthz", alive)
        app.router.add_get("/readyz", ready)
        app.router.add_get("/metrics", metrics)
        return app


class _Worker:
    def __init__(self, index: int, settings: RelaySettings, sockets: RelaySockets) -> None:
        self.index, self.restarts, self.problem = index, 0, "starting"
        self.gone = asyncio.Event()
        self._settings, self._sockets = settings, sockets
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = False

    async def keep(self) -> None:
        """Run the worker, again whenever it ends, until it is told to leave."""
        pauses, failures = _RESTART_PAUSES_S, 0
        descriptors = [one.fileno() for one in (self._sockets.outside, self._sockets.inside, self._sockets.health)]
        while not self._leaving:
            began = asyncio.get_running_loop().time()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", PROGRAM, str(self.index), *map(str, descriptors)),
                env=_environment(self._settings),
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for us to pass on
            )
            code = await self._process.wait()
            if self._leaving:
                break
            self.restarts += 1
            failures = 0 if asyncio.get_running_loop().time() - began > 10 * pauses[-1] else failures + 1
            self.problem = f"it ended with {code}"
            log.error("worker %d: %s; starting it again", self.index, self.problem)
            await asyncio.sleep(pauses[min(failures, len(pauses) - 1)])
        self.gone.set()

    def leave(self) -> None:
        self._leaving = True
        if self._process is None or self._process.returncode is not None:
            self.gone.set()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._leaving = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def get(self, path: str) -> tuple[int, str] | None:
        """Ask the worker; None when it does not answer."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                # Connected here: uvloop takes an abstract name for an empty one.
                one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                one.setblocking(False)
                with contextlib.closing(one):
                    one.connect(self._sockets.health.getsockname())
                    reader, writer = await asyncio.open_unix_connection(sock=one)
                    with contextlib.closing(writer):
                        writer.write(f"GET {path} HTTP/1.0\r\nHost: worker\r\n\r\n".encode())
                        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return parse_integer(head.split()[1].decode("ascii", "replace"), 999), body.decode()
        except (OSError, TimeoutError, IndexError, ValueError):
            return None


class _Merged(Collector):
    def __init__(self, texts: Mapping[str, str], workers: Iterable[_Worker]) -> None:
        self._texts, self._workers = texts, list(workers)

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for whose, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.samples.append(sample._replace(labels={**sample.labels, "worker": whose}))
        yield from merged.values()
        restarts = CounterMetricFamily("voicefleet_relay_worker_restarts", "Workers that died", labels=["worker"])
        for worker in self._workers:
            restarts.add_metric([str(worker.index)], worker.restarts)
        yield restarts


def worker_settings(settings: RelaySettings, index: int) -> RelaySettings:
    """Return what one worker runs with: its share of what is bounded for the whole relay."""
    return settings.model_copy(
        update={
            "workers": 1,
            "process_name": f"{settings.process_name}/{index}",
            "max_flows": -(-settings.max_flows // settings.workers),
            "failed_checks_per_second": settings.failed_checks_per_second / settings.workers,
        }
    )


def common(process: str, said: list[Acknowledgement]) -> Acknowledgement:
    """Return what holds for all: the oldest topology, the key epochs that each has, the flows of all together."""
    pools = set.intersection(*(set(one.ring_epochs) for one in said))
    left = [one.flows_left for one in said if one.flows_left is not None]
    return Acknowledgement(
        process=process,
        topology_revision=min(one.topology_revision for one in said),
        ring_epochs={pool: min(one.ring_epochs[pool] for one in said) for pool in sorted(pools)},
        key_epochs=tuple(sorted(set.intersection(*(set(one.key_epochs) for one in said)))),
        flows_left=sum(left) if len(left) == len(said) else None,
        datapath=said[0].datapath,  # workers forward in user space, all of them
        datapath_reason=said[0].datapath_reason,
        at=0.0,
    )


async def run_relay_workers(settings: RelaySettings) -> None:
    """Run until cancelled; then leave. Raises OSError or ValueError when it cannot start."""
    async with contextlib.AsyncExitStack() as closing:
        workers = RelayWorkers(settings)
        await workers.start()
        closing.push_async_callback(workers.stop)
        if settings.redis_url:
            sink = RedisSink(settings)
            closing.push_async_callback(sink.close)
            reporting = asyncio.create_task(_report(settings, workers, sink))
            closing.callback(reporting.cancel)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await workers.leave()


async def _report(settings: RelaySettings, workers: RelayWorkers, sink: RedisSink) -> None:
    """Acknowledge what all workers said last; nothing of keys and topology before each has said something."""
    said = Acknowledgement(process=settings.process_name, topology_revision=0, at=0.0)
    acknowledger = Acknowledger(settings.cluster_id, lambda: said, sink)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(acknowledger.run())
        try:
            while True:
                said = await workers.acknowledgement() or said
                await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        finally:
            await acknowledger.leave()


def _environment(settings: RelaySettings) -> dict[str, str]:
    """Return ours, with the worker's settings in place of all of our own: a default is told by its absence."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**ours, **settings.to_environment()}


def _listener(public_port: int, index: int) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # By the port, which is ours alone in this network namespace; process numbers are not: pods have a 1 each.
    one.bind(f"\0voicefleet-relay/health/{public_port}/{index}")
    one.listen()
    one.setblocking(False)
    return one
