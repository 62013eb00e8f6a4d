"""Hanging up a call: its id says the slot, the topology says where that is, the owner's control API does it.

Works without the registry. Nothing is dialled that a registry or a caller names: only members of the topology.
"""

import ssl
from collections.abc import Callable

import aiohttp

from voicefleet_contract import names
from voicefleet_contract.call_id import CallIdError, peek_call_id
from voicefleet_contract.topology import TopologyError, TopologyIndex, join
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.observe import UnreadableError, observe_slice
from voicefleet_operator.sessions_api.status import StatusError

_TIMEOUT_S = 5.0


class HangUps:
    """Asks owners. ``context`` gives the TLS context of this process' certificate as it is now."""

    def __init__(self, api: KubeApi, cluster: int, context: Callable[[], ssl.SSLContext]) -> None:
        self._api, self._cluster, self._context = api, cluster, context

    async def hang_up(self, call_id: str) -> bool:
        """End a call; False if there is none. Raises StatusError 503 when its owner cannot be asked."""
        try:
            call = peek_call_id(call_id)
        except CallIdError:
            return False
        if call.cluster != self._cluster:
            return False
        member = (await self._topology()).member(call.slot, call.generation)
        if member is None:
            return False  # its pod is gone, and the call with it
        url = f"https://{member.as_address()}/v1/sessions/{call_id}"
        server = names.inner_dns_name("transceiver")
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.delete(url, ssl=self._context(), server_hostname=server) as response,
            ):
                if response.status not in (200, 404):
                    raise StatusError(503, f"the owner {member.name} answered {response.status}", retry_after_s=1)
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StatusError(503, f"the owner {member.name} does not answer: {error!r}", retry_after_s=1) from None

    async def _topology(self) -> TopologyIndex:
        try:
            found = await self._api.list("TopologySlice")
            return TopologyIndex(join([observe_slice(body) for body in found]))
        except (KubeError, TopologyError, UnreadableError) as error:
            raise StatusError(503, f"no topology to find the owner in: {error}", retry_after_s=1) from None
