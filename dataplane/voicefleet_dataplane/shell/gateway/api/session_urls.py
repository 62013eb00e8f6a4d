"""Session URLs: what WHIP and WHEP do with a session after its POST (RFC 9725 sections 4.2 to 4.4, and its draft sibling).

A session URL is the endpoint's and the call id, which nobody can guess and every gateway can read; its key must be of the
tenant that made the call. The entity-tag is our ufrag: it names the ICE session, and only the owner knows which is the newest.

Owns: GET, PATCH, DELETE and OPTIONS of a session URL, the headers of a 201. Does not own: POST (api/whip, api/whep), what a
restart does (core/call/ice).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web

from voicefleet_contract.http_api import SDP_TYPE
from voicefleet_dataplane.shell.gateway.api.bodies import read_body
from voicefleet_dataplane.shell.gateway.api.errors import PREFLIGHT_HEADERS, ApiError
from voicefleet_dataplane.shell.gateway.api.openapi import (
    BODY_ERRORS,
    CALL_ID,
    KEY_ERRORS,
    LOCATION,
    PLACING_ERRORS,
    PLACING_PARAMETERS,
    SDP_CONTENT,
    Paths,
    ok,
    operation,
)
from voicefleet_dataplane.shell.gateway.call_placing import MAX_CANDIDATES, CallPlacer, Placed
from voicefleet_dataplane.wire.sdp.fragment import (
    MAX_FRAGMENT_BYTES,
    FragmentError,
    build_fragment,
    parse_fragment_untrusted,
)

FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_STRONG_TAG = re.compile(r'"([!#-~]*)"')
_MAX_TAGS = 16


class SessionUrls:
    """The session URLs below one endpoint. ``ice_servers`` are told to clients in Link headers."""

    def __init__(self, placer: CallPlacer, endpoint: str, ice_servers: tuple[str, ...]) -> None:
        self._placer, self._endpoint = placer, endpoint
        self._links = tuple(f'<{server}>; rel="ice-server"' for server in ice_servers)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        path = self._endpoint + "/{call_id}"
        router.add_get(path, self.get)
        router.add_patch(path, self.patch)
        router.add_delete(path, self.delete)
        router.add_options(path, self.options)

    def describe(self) -> Paths:
        """Return the paths."""
        fragment = {FRAGMENT_TYPE: {"schema": {"type": "string"}}}
        tag = {"ETag": {"schema": {"type": "string"}, "description": "The ICE session."}}
        if_match = {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
        name = self._endpoint.strip("/")
        errors = (*KEY_ERRORS, 404, 503)
        patch = operation(
            f"{name}SessionPatch",
            "More candidates, or an ICE restart",
            {200: ok("ICE was restarted.", fragment, tag), 204: ok("The candidates were heard.")},
            (*errors, *BODY_ERRORS, 412, 415, 428, 501),
            parameters=(CALL_ID, if_match),
            body=fragment,
        )
        return {
            self._endpoint + "/{call_id}": {
                "get": operation(
                    f"{name}SessionGet", "Is it of this fleet", {204: ok("Yes.")}, errors, parameters=(CALL_ID,)
                ),
                "patch": patch,
                "delete": operation(
                    f"{name}SessionDelete", "End the session", {200: ok("It is over.")}, errors, parameters=(CALL_ID,)
                ),
            }
        }

    def describe_post(self, summary: str, parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the operation of the endpoint's POST."""
        return operation(
            f"{self._endpoint.strip('/')}Post",
            summary,
            {201: ok("The answer.", SDP_CONTENT, LOCATION)},
            (*KEY_ERRORS, *BODY_ERRORS, 404, 415, *PLACING_ERRORS),
            parameters=(*parameters, *PLACING_PARAMETERS),
            body=SDP_CONTENT,
        )

    def created(self, request: web.Request, placed: Placed, *links: str) -> web.Response:
        """Return the 201 of a POST."""
        session = placed.session
        location = f"{self._endpoint}/{session.call_id}"
        region = request.query.get("region")  # a restart shall find the region that the caller named
        headers = {"Content-Type": SDP_TYPE, "Location": location + (f"?region={quote(region)}" if region else "")}
        if session.ufrag:  # else an owner of a version before, which restarts no ICE
            headers["ETag"] = f'"{session.ufrag}"'
        response = web.Response(status=201, body=session.answer.encode(), headers=headers)
        for link in (*self._links, *links):
            response.headers.add("Link", link)
        return response

    async def get(self, request: web.Request) -> web.Response:
        """A session has no representation."""
        async with self._placer.admission.admitted(request, ephemeral=True):
            self._placer.owner(request.match_info["call_id"])
        return web.Response(status=204)

    async def options(self, request: web.Request) -> web.Response:
        """Say what may be sent."""
        return web.Response(status=200, headers=PREFLIGHT_HEADERS | {"Accept-Patch": FRAGMENT_TYPE})

    async def delete(self, request: web.Request) -> web.Response:
        """End the session, whatever the entity-tag."""
        async with self._placer.admission.admitted(request, ephemeral=True) as caller:
            await self._placer.hang_up(request.match_info["call_id"], caller.tenant)
        return web.Response(status=200)

    async def patch(self, request: web.Request) -> web.Response:
        """More candidates: 204. Other credentials: an ICE restart, 200 and ours."""
        async with self._placer.admission.admitted(request, ephemeral=True) as caller:
            call_id = request.match_info["call_id"]
            if request.content_type != FRAGMENT_TYPE:
                message = f"send an ICE fragment as Content-Type: {FRAGMENT_TYPE}, not {request.content_type}"
                raise ApiError(415, "unsupported_media_type", message, headers={"Accept-Patch": FRAGMENT_TYPE})
            if_match = _entity_tags(request)
            try:
                fragment = parse_fragment_untrusted(await read_body(request, MAX_FRAGMENT_BYTES, "fragment"))
            except FragmentError as error:
                raise ApiError(400, "invalid_fragment", str(error), param="fragment") from None
            said, ingress = await self._placer.update_ice(
                request, caller, call_id, if_match, fragment.ufrag, fragment.pwd
            )
        if not said.restarted:
            return web.Response(status=204)
        candidates = [one.as_address() for one in ingress.advertise[:MAX_CANDIDATES]]
        return web.Response(
            body=build_fragment(said.ice_ufrag, said.ice_pwd, said.mids, candidates).encode(),
            headers={"Content-Type": FRAGMENT_TYPE, "ETag": f'"{said.ice_ufrag}"'},
        )


def _entity_tags(request: web.Request) -> tuple[str, ...]:
    """Return the tags of If-Match. Raises ApiError 428 without one; a weak tag matches nothing (RFC 9110 section 13.1.1)."""
    header = ", ".join(request.headers.getall(hdrs.IF_MATCH, []))
    if not header.strip():
        message = "send If-Match: the ETag of the last answer, or * for an ICE restart"
        raise ApiError(428, "precondition_required", message, param="If-Match")
    if header.strip() in ("*", '"*"'):  # RFC 9725 shows the second one in its example
        return ("*",)
    tags = [found[1] for part in header.split(",") if (found := _STRONG_TAG.fullmatch(part.strip()))]
    return tuple(tags[:_MAX_TAGS])
