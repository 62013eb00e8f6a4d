"""A Lease in the API server: one operator writes at a time.

Whoever cannot renew for `LIFE_S` must stop by then: `hold` returns `STOP_BEFORE_S` earlier, and the process ends. Until
then a renewal that failed is tried again every second: one stalled request costs no leader. A standby waits for as long as
the API server is away: were it to end, Kubernetes would start it again after longer and longer pauses, and nobody would
lead for minutes after the API server is back. Writes that matter (ledger) are fenced by resourceVersion besides, so a
process that stopped too late cannot repeat a generation.
"""

import asyncio
import logging
from datetime import UTC, datetime

from voicefleet_operator.cluster.api import KubeApi, KubeError, Object

log = logging.getLogger("voicefleet.operator")

LIFE_S, RENEW_S, RETRY_S = 15.0, 5.0, 3.0
AGAIN_S, STOP_BEFORE_S = 1.0, 3.0


class Lease:
    """The right to write, by name."""

    def __init__(self, api: KubeApi, name: str, holder: str) -> None:
        self._api, self._name, self._holder = api, name, holder
        self._body: Object = {}
        self._renewed: float | None = None
        self._seen: tuple[str, float] = ("", 0.0)  # the other's renewTime, and when our clock first saw it

    def held(self) -> bool:
        """Tell whether nobody else can have the Lease yet, by our own clock."""
        return self._renewed is not None and asyncio.get_running_loop().time() - self._renewed < LIFE_S

    async def acquire(self) -> None:
        """Wait until the Lease is ours, whatever the API server does meanwhile."""
        told = ""
        while True:
            try:
                async with asyncio.timeout(RENEW_S):
                    if await self._try():
                        break
                why = f"held by {self._spec().get('holderIdentity')}; waiting"
            except (KubeError, OSError, TimeoutError) as error:
                why = f"not asked: {error or type(error).__name__}; again every {RETRY_S:g} s"
            if why != told:
                log.info("lease %s: %s", self._name, why)
            told = why
            await asyncio.sleep(RETRY_S)
        log.info("lease %s: held", self._name)

    async def hold(self) -> None:
        """Renew for ever; return when the Lease is lost."""
        loop = asyncio.get_running_loop()
        pause_s = RENEW_S
        while True:
            await asyncio.sleep(pause_s)
            left_s = LIFE_S - STOP_BEFORE_S - (loop.time() - (self._renewed or 0.0))
            if left_s <= 0:
                log.error("lease %s: not renewed for too long", self._name)
                return
            pause_s = AGAIN_S
            try:
                async with asyncio.timeout(min(RENEW_S, left_s)):
                    if not await self._try():
                        log.error("lease %s: lost to %s", self._name, self._spec().get("holderIdentity"))
                        return
                pause_s = RENEW_S
            except (KubeError, OSError, TimeoutError) as error:
                log.warning("lease %s: not renewed: %s", self._name, error or type(error).__name__)

    async def release(self) -> None:
        """Give the Lease back so that the next operator need not wait."""
        if self._spec().get("holderIdentity") != self._holder:
            return
        self._body["spec"] = {**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._api.replace("Lease", self._body)

    def _spec(self) -> Object:
        spec: Object = self._body.get("spec") or {}
        return spec

    async def _try(self) -> bool:
        now, asked_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), asyncio.get_running_loop().time()
        found = await self._api.get("Lease", self._name)
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": int(LIFE_S), "renewTime": now}
        try:
            if found is None:
                body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
                self._body = await self._api.create("Lease", {**body, "spec": {**spec, "acquireTime": now}})
                self._renewed = asked_at
                return True
            self._body = found
            if not self._may_take(self._spec()):
                return False
            ours = self._spec().get("holderIdentity") == self._holder
            acquired = self._spec().get("acquireTime", now) if ours else now
            self._body = await self._api.replace("Lease", {**found, "spec": {**spec, "acquireTime": acquired}})
            self._renewed = asked_at  # from before the request: the others count from when it was written
            return True
        except KubeError as error:
            if error.status != 409:
                raise
            return False  # another one was quicker

    def _may_take(self, spec: Object) -> bool:
        """Time is our own clock since we first saw this renewTime: clocks of two machines are never compared."""
        holder, renewed = spec.get("holderIdentity"), str(spec.get("renewTime"))
        if holder in (None, "", self._holder):
            return True
        now = asyncio.get_running_loop().time()
        if self._seen[0] != renewed:
            self._seen = (renewed, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or LIFE_S)
