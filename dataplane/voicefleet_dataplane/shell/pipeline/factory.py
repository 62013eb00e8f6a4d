"""All voice pipelines of one transceiver: the engines that its settings name, and what calls share of them.

Owns: finding engines by name, the threads and processes they run in. Does not own: a call's pipeline
(shell/pipeline/backend.py), any engine.
"""

from collections.abc import Sequence
from importlib.metadata import entry_points

from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.engines.stages import (
    SPEECH_TO_TEXT,
    TEXT_TO_SPEECH,
    VOICE_ACTIVITY,
    VoiceActivityEngine,
    find_engine,
)
from voicefleet_dataplane.media.backend import Backend, Call
from voicefleet_dataplane.media.pipeline.conversation import Plan
from voicefleet_dataplane.shell.agents.dialer import AgentSockets
from voicefleet_dataplane.shell.pipeline.backend import PipelineBackend
from voicefleet_dataplane.shell.pipeline.engine_pool import EnginePool
from voicefleet_dataplane.shell.pipeline.text_handlers import TEXT_HANDLER, HandlerResources, TextHandlers
from voicefleet_dataplane.shell.process.codec_thread import CodecThread


class Pipelines:
    """Makes backends for one transceiver."""

    def __init__(self, settings: TransceiverSettings, urls: Sequence[str], sockets: AgentSockets) -> None:
        """Load the engine of voice activity, and see that there are the others. Raises ValueError naming what is missing."""
        for group, name in (
            (SPEECH_TO_TEXT, settings.pipeline_speech_to_text),
            (TEXT_TO_SPEECH, settings.pipeline_text_to_speech),
        ):
            find_engine(group, name)
        try:
            self._ears: VoiceActivityEngine = find_engine(VOICE_ACTIVITY, settings.pipeline_voice_activity)()
        except ImportError as error:
            raise ValueError(f"voice activity: {error}; install voicefleet[pipeline]") from None
        self._handlers = _find_handlers(
            settings.pipeline_text, HandlerResources(urls, sockets, settings.backend_connect_timeout_s)
        )
        self._pool = EnginePool(
            settings.pipeline_speech_to_text,
            settings.pipeline_text_to_speech,
            settings.pipeline_processes,
            settings.pipeline_utterances,
        )
        self._plan = Plan(
            transcriber=settings.pipeline_speech_to_text,
            voice=settings.pipeline_voice,
            model=settings.pipeline_text_model,
            words_within_s=settings.pipeline_speech_to_text_timeout_s,
            text_within_s=settings.pipeline_text_timeout_s,
            speech_within_s=settings.pipeline_text_to_speech_timeout_s,
            hangs_up_on_failure=settings.pipeline_hang_up_on_failure,
        )
        self._thread = CodecThread("voice activity")

    @property
    def pool(self) -> EnginePool:
        """The processes."""
        return self._pool

    async def start(self) -> None:
        """Start the processes, so that no caller waits for them. Raises ValueError when none can run."""
        await self._pool.wait_ready()

    def make(self, call: Call) -> Backend:
        """Return the backend of one call."""
        self._pool.start()
        return PipelineBackend(call, self._plan, self._ears.open(), self._thread, self._pool, self._handlers.open)

    async def close(self) -> None:
        """End threads and processes."""
        await self._handlers.close()
        await self._pool.close()
        self._thread.close()


def _find_handlers(name: str, resources: HandlerResources) -> TextHandlers:
    there = {point.name: point for point in entry_points(group=TEXT_HANDLER)}
    if name not in there:
        raise ValueError(f"no text handler {name!r} is installed here; there are: {', '.join(sorted(there)) or 'none'}")
    made: TextHandlers = there[name].load()(resources)
    return made
