"""Which backend a transceiver's calls get, as its settings say, and what all of them share.

Owns: the choice, the key's file, the sockets, the lines that are open. Does not own: any backend.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.media.agent import AgentProtocol
from voicefleet_dataplane.media.agent_address import Network, refusal_of_url
from voicefleet_dataplane.media.backend import Backend, Call, CallConfig
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.media.media_stream import MediaStream
from voicefleet_dataplane.media.openai_realtime import OpenAIRealtime
from voicefleet_dataplane.media.opus_stream import OpusStream
from voicefleet_dataplane.media.realtime_profiles import DIALECTS, Profile
from voicefleet_dataplane.shell.agents.backend import AgentBackend, FailurePolicy
from voicefleet_dataplane.shell.agents.connection import AgentLink, LinkListener
from voicefleet_dataplane.shell.agents.dialer import AgentSockets
from voicefleet_dataplane.shell.pipeline.factory import Pipelines
from voicefleet_dataplane.shell.process.watched_files import Watched

_GOOD_BYE_S = 1.0


class Backends:
    """Makes backends for one transceiver."""

    def __init__(self, settings: TransceiverSettings) -> None:
        """Read the key. Raises OSError or ValueError naming what is wrong."""
        self._kind = settings.backend
        self._urls = [url for url in (settings.backend_url, *settings.backend_fallback_urls.split()) if url]
        for url in self._urls:
            why = refusal_of_url(url, http=self._kind == "Pipeline")
            if why is not None:
                raise ValueError(f"the backend's URL {url!r} {why}")
        self._profile = Profile(settings.backend_profile)
        self._policy = FailurePolicy(settings.backend_connect_timeout_s, settings.backend_reconnect_s)
        self._key: Watched[str] | None = None
        if settings.backend_key_file:
            path = Path(settings.backend_key_file)
            self._key = Watched(f"the backend's key {path}", lambda: [path], lambda: _read_key(path))
        headers = DIALECTS[self._profile].headers if self._kind == "OpenAIRealtime" else ()
        self._sockets = AgentSockets(
            Network(settings.backend_network),
            lambda: self._key.value if self._key else "",
            headers,
            # A text handler is asked again and again, and its connections are kept: they are ready as they are.
            warm=0 if self._kind == "Pipeline" else settings.backend_warm_connections,
        )
        self._links: set[AgentLink] = set()
        self._pipelines: Pipelines | None = None
        if self._kind == "Pipeline":
            self._pipelines = Pipelines(settings, self._urls, self._sockets)

    async def start(self) -> None:
        """Warm up: from now on calls may come. Raises ValueError when they could not be served."""
        if self._pipelines is not None:
            await self._pipelines.start()

    def counts(self) -> dict[str, int]:
        """What became of the engines' work; empty without engines."""
        return self._pipelines.pool.counts() if self._pipelines is not None else {}

    def make(self, call: Call) -> Backend:
        """Return the backend of one call."""
        if self._kind == "Echo":
            return Echo(call)
        if self._pipelines is not None:
            return self._pipelines.make(call)
        open_link = partial(self._open_link, traceparent=call.config.traceparent)
        return AgentBackend(call, self._protocol(), open_link, self._policy)

    def check_key(self) -> None:
        """Read the key again if its file has changed."""
        if self._key is not None:
            self._key.check()

    async def close(self) -> None:
        """Let the agents hear good-bye, and close."""
        if self._links:
            await asyncio.gather(*(link.wait_closed(_GOOD_BYE_S) for link in self._links))
        if self._pipelines is not None:
            await self._pipelines.close()
        await self._sockets.close()

    def _protocol(self) -> Callable[[CallConfig], AgentProtocol]:
        match self._kind:
            case "MediaStream":
                return MediaStream
            case "OpusStream":
                return OpusStream
            case _:
                model = parse_qs(urlsplit(self._urls[0]).query).get("model", [""])[0]
                return lambda config: OpenAIRealtime(config, self._profile, model)

    def _open_link(
        self, listener: LinkListener, subprotocols: tuple[str, ...], within_s: float, *, traceparent: str = ""
    ) -> AgentLink:
        link = AgentLink(listener, self._sockets, self._urls, subprotocols, within_s=within_s, traceparent=traceparent)
        self._links.add(link)
        link.on_finished(self._links.discard)
        return link


def _read_key(path: Path) -> str:
    key = path.read_text("utf-8").strip()
    if not key or not key.isprintable() or not key.isascii():
        raise ValueError("it is empty, or not one line of printable ASCII")
    return key
