"""Telling transceivers to drain, and asking how many sessions they still have, over the control API with mutual TLS.

The order is repeated while a pod drains, so a process that restarted, or has another deadline by now, hears the newest. The
transceiver's own word is needed before its pod is deleted: "draining, no sessions" means that none can have come in
between, which no heartbeat in a cache can say.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp

from voicefleet_contract import names
from voicefleet_contract.http_api import DrainOrder, SlotStatus
from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_operator.desired.pool.gray import Counts
from voicefleet_operator.desired.state import Drained, Pod

_TIMEOUT_S = 3.0
_AT_ONCE = 32
_MAX_ANSWER_BYTES = 1 << 20


def client_context(directory: Path) -> ssl.SSLContext:
    """Return a context for asking transceivers with a role's certificate. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=str(directory / names.TLS_CA_FILE))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / names.TLS_CERT_FILE, directory / names.TLS_KEY_FILE)
    return context


class ControlClient:
    """A client of transceivers' control API."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context: ssl.SSLContext | None = None

    def use_certificate(self, files: dict[str, bytes]) -> None:
        """Take a (new) certificate, as the Secret has it. OpenSSL reads files only: they stay in our own directory."""
        for name in (names.TLS_CERT_FILE, names.TLS_KEY_FILE, names.TLS_CA_FILE):
            path = self._directory / name
            path.touch(mode=0o600)
            path.write_bytes(files[name])
        self._context = client_context(self._directory)

    async def drain(self, pods: Iterable[tuple[Pod, float]]) -> dict[str, Drained]:
        """Tell pods to take no more sessions and when to hang up (in seconds from now).

        Return what each said, by uid. Silent ones are left out.
        """
        leaving = list(pods)
        orders = {pod.uid: DrainOrder(hang_up_after_s=after_s) for pod, after_s in leaving}
        said = await self._ask([pod for pod, _ in leaving], "POST", "/v1/drain", orders)
        return {
            pod.uid: Drained(status.state, status.sessions, status.oldest_started_at, status.newest_started_at)
            for pod, status in said
        }

    async def media(self, pods: Iterable[Pod]) -> dict[tuple[int, int], Counts]:
        """Ask pods whose calls' media came up, by slot and generation. Silent ones are left out."""
        said = await self._ask(list(pods), "GET", "/v1/status", {})
        return {(pod.slot, pod.generation): Counts(status.media_up, status.media_failed) for pod, status in said}

    async def _ask(
        self, pods: list[Pod], method: str, path: str, orders: Mapping[str, DrainOrder]
    ) -> list[tuple[Pod, SlotStatus]]:
        gate = asyncio.Semaphore(_AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def ask(pod: Pod) -> tuple[Pod, SlotStatus | None]:
                async with gate:
                    return pod, await self._ask_one(session, pod, method, path, orders.get(pod.uid))

            answers = await asyncio.gather(*map(ask, pods))
        return [(pod, status) for pod, status in answers if status is not None]

    async def _ask_one(
        self, session: aiohttp.ClientSession, pod: Pod, method: str, path: str, order: DrainOrder | None
    ) -> SlotStatus | None:
        if self._context is None:
            return None
        host = f"[{pod.host_ip}]" if ":" in pod.host_ip else pod.host_ip
        url, server = f"https://{host}:{pod.port}{path}", names.inner_dns_name("transceiver")
        body = None if order is None else order.model_dump_json()
        try:
            async with session.request(method, url, data=body, ssl=self._context, server_hostname=server) as response:
                status = parse_model(SlotStatus, await response.read(), _MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError, OutsideError):
            return None
        # Else somebody else listens there by now.
        return status if (status.slot, status.generation) == (pod.slot, pod.generation) else None
