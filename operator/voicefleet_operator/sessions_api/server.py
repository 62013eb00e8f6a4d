"""The HTTP side: kube-apiserver's requests for sessions, and nobody else's.

Discovery never waits for the registry: an APIService that is not Available blocks every namespace's deletion in the cluster,
so a registry that is away is a 503 for sessions and for nothing else.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from voicefleet_contract.outside import OutsideError, parse_integer
from voicefleet_operator.sessions_api import discovery, external_metrics
from voicefleet_operator.sessions_api.access import Action, Authorizer, FrontProxy
from voicefleet_operator.sessions_api.hangup import HangUps
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.lists import Form, View, list_sessions, negotiate
from voicefleet_operator.sessions_api.metrics import Metrics
from voicefleet_operator.sessions_api.registry import RegistryAwayError, SessionRegistry
from voicefleet_operator.sessions_api.resource import API_VERSION, GROUP, PLURAL, uid_of
from voicefleet_operator.sessions_api.selectors import Query, parse_query
from voicefleet_operator.sessions_api.status import StatusError, success
from voicefleet_operator.sessions_api.watch import parse_watch_options, watch

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BASE = f"/apis/{API_VERSION}"
_ONE = f"{_BASE}/namespaces/{{namespace}}/{PLURAL}/{{name}}"
_WATCH_S = 1_800  # as kube-apiserver does: 30 to 60 minutes, then the client comes again
_WATCHING = ("true", "1")


def status_response(error: StatusError, name: str = "") -> web.Response:
    """Return a refusal."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return web.json_response(error.body(name), status=error.code, headers=headers)


class SessionsApi:
    """Handlers over one registry. ``namespace``: where this fleet, and so each of its sessions, is."""

    def __init__(
        self,
        namespace: str,
        registry: SessionRegistry,
        hub: Hub,
        front_proxy: Callable[[], FrontProxy],
        authorizer: Authorizer,
        hang_ups: HangUps,
        metrics: Metrics,
    ) -> None:
        self._namespace, self._registry, self._hub = namespace, registry, hub
        self._front_proxy, self._authorizer = front_proxy, authorizer
        self._hang_ups, self._metrics = hang_ups, metrics

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._answer_errors], client_max_size=64 * 1024)
        for path, document in (
            ("/apis/" + GROUP, discovery.api_group),
            (_BASE, discovery.api_resources),
            ("/openapi/v3", discovery.openapi_index),
            (f"/openapi/v3/apis/{API_VERSION}", discovery.openapi),
        ):
            app.router.add_get(path, self._document(document))
        app.router.add_get("/apis", self._groups)
        app.router.add_get(f"/apis/{external_metrics.API_VERSION}", self._document(external_metrics.api_resources))
        app.router.add_get(
            f"/apis/{external_metrics.API_VERSION}/namespaces/{{namespace}}/{{metric}}", self._external_metric
        )
        app.router.add_get(f"{_BASE}/{PLURAL}", self._list)
        app.router.add_get(f"{_BASE}/namespaces/{{namespace}}/{PLURAL}", self._list)
        app.router.add_get(_ONE, self._get)
        app.router.add_delete(_ONE, self._delete)
        app.router.add_post(f"{_ONE}/hangup", self._hang_up)
        return app

    # ---- documents

    def _document(self, document: Callable[[], discovery.Object]) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            self._front_proxy().authenticate(request)
            return web.json_response(document())

        return answer

    async def _groups(self, request: web.Request) -> web.Response:
        self._front_proxy().authenticate(request)
        if "as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
            return web.Response(
                body=json.dumps(discovery.aggregated()).encode(), headers={"Content-Type": discovery.AGGREGATED}
            )
        return web.json_response(discovery.api_groups())

    # ---- sessions

    async def _list(self, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("namespace", "")
        watching = request.query.get("watch") in _WATCHING
        await self._require(request, "watch" if watching else "list", namespace)
        query = parse_query(
            request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""), self._namespace
        )
        if namespace not in ("", self._namespace):
            query = Query(nothing=True)  # our sessions are all in one namespace
        view = self._view(request)
        if watching:
            return await self._watch(request, query, view)
        parts = await list_sessions(self._registry, query, view, request.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        first = await anext(parts)  # what can fail, fails before the answer has begun
        await response.prepare(request)
        await response.write(first)
        async for part in parts:
            await response.write(part)
        await response.write_eof()
        return response

    async def _get(self, request: web.Request) -> web.Response:
        await self._require(request, "get", request.match_info["namespace"])
        version = await self._registry.newest()
        record = None
        if request.match_info["namespace"] == self._namespace:
            record = await self._registry.get(request.match_info["name"])
        if record is None:
            raise StatusError(404, f'{PLURAL}.{GROUP} "{request.match_info["name"]}" not found')
        return web.json_response(self._view(request).one(record, version))

    async def _watch(self, request: web.Request, query: Query, view: View) -> web.StreamResponse:
        options, lasts_s = parse_watch_options(request.query), _seconds(request.query.get("timeoutSeconds", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        columns = view.form is Form.TABLE

        async def send(kind: str, one: discovery.Object) -> None:
            await response.write(json.dumps({"type": kind, "object": one}).encode() + b"\n")

        try:
            async with asyncio.timeout(lasts_s):
                with self._metrics.watching():
                    async for event in watch(self._registry, self._hub, query, options):
                        if event is None:
                            continue
                        if event.record is None:
                            await send(event.kind, view.bookmark(event.version, initial_end=event.initial_end))
                            continue
                        one = view.one(event.record, event.version)
                        if view.form is Form.TABLE and not columns:
                            one["columnDefinitions"] = None  # said with the first event
                        columns = False
                        await send(event.kind, one)
        except StatusError as error:
            self._metrics.expired_watches.inc(error.code == 410)
            await send("ERROR", error.body())
        except RegistryAwayError as error:
            await send("ERROR", StatusError(503, str(error)).body())
        except TimeoutError:
            pass  # its time is over: the client watches on from its last version
        await response.write_eof()
        return response

    async def _external_metric(self, request: web.Request) -> web.Response:
        """For a HorizontalPodAutoscaler. Reached only where the chart's APIService for it is enabled."""
        namespace, metric = request.match_info["namespace"], request.match_info["metric"]
        action = Action(
            "list", namespace, resource=metric, group=external_metrics.GROUP, version=external_metrics.VERSION
        )
        await self._authorizer.require(self._front_proxy().authenticate(request), action)
        slots = await self._registry.slots() if namespace == self._namespace else []
        selector = request.query.get("labelSelector", "")
        loads = external_metrics.pool_loads(slots)
        return web.json_response(external_metrics.values(loads, metric, selector, time.time()))

    # ---- hanging up

    async def _delete(self, request: web.Request) -> web.Response:
        await self._require(request, "delete", request.match_info["namespace"])
        return await self._end(request)

    async def _hang_up(self, request: web.Request) -> web.Response:
        await self._require(request, "create", request.match_info["namespace"], "hangup")
        return await self._end(request)

    async def _end(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.query.get("dryRun"):
            raise StatusError(400, "dryRun: a call cannot be hung up for trial")
        if request.match_info["namespace"] != self._namespace or not await self._hang_ups.hang_up(name):
            raise StatusError(404, f'{PLURAL}.{GROUP} "{name}" not found')
        self._metrics.hang_ups.inc()
        return web.json_response(success(name, uid_of(name)))

    # ---- every request

    async def _require(self, request: web.Request, verb: str, namespace: str, subresource: str = "") -> None:
        user = self._front_proxy().authenticate(request)
        await self._authorizer.require(user, Action(verb, namespace, request.match_info.get("name", ""), subresource))

    def _view(self, request: web.Request) -> View:
        return negotiate(request.headers.get("Accept", ""), self._namespace, request.query.get("includeObject", ""))

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        name = request.match_info.get("name", "")
        with self._metrics.request(request) as said:
            try:
                response = await handler(request)
            except StatusError as error:
                response = status_response(error, name)
            except RegistryAwayError as error:
                response = status_response(StatusError(503, str(error)), name)  # no Retry-After: kubectl would wait
            except web.HTTPMethodNotAllowed as error:
                response = status_response(StatusError(405, f"sessions cannot be asked for {error.method}"), name)
            except web.HTTPNotFound:
                response = status_response(StatusError(404, f"the server has no {request.path}"), name)
            said.code = response.status
        return response


def _seconds(text: str) -> float:
    """Return how long a watch lasts: as asked, at most as long as one that did not ask. Raises StatusError 400."""
    longest_s = _WATCH_S * random.uniform(1.0, 2.0)
    try:
        return min(parse_integer(text or "0", (1 << 63) - 1) or longest_s, longest_s)
    except OutsideError:
        raise StatusError(400, f"timeoutSeconds: Invalid value {text[:40]!r}: write a number of seconds") from None
