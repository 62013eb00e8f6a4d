"""Processes that recognise and speak for all pipelines of a transceiver: no engine runs where packets do.

::

    call ── listen, feed, conclude ─▶ the process with the fewest utterances ─▶ words
    call ── speak ──────────────────▶ the process with the fewest sentences ──▶ sound, spoken

A process takes a few utterances at once, a piece of each in turn; when all have as many as they take, an utterance waits with
its audio, and catches up faster than it was spoken.

Owns: who gets which job, bounds of what waits, when a process is started again. Does not own: a process (shell/pipeline/engine_process.py),
engines (engines/), deadlines of a job (media/pipeline/conversation.py).
Invariant: each job ends once, with its result or with a failure, whatever becomes of its process; a job that was forgotten
tells nothing more.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from voicefleet_dataplane.engines.wire import Kind, build_frame
from voicefleet_dataplane.shell.pipeline.engine_process import EngineProcess

log = logging.getLogger("voicefleet.transceiver")

MAX_WAITING = 64  # utterances without a process
MAX_SENTENCES = 256  # in all processes
LOADED_WITHIN_S = 60.0
_LOOK_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 10.0


class JobListener(Protocol):
    """Who wants a job done. Nothing here may block."""

    def on_words(self, job: "Job", text: str) -> None:
        """What was said."""

    def on_sound(self, job: "Job", pcm: bytes) -> None:
        """More speech."""

    def on_spoken(self, job: "Job") -> None:
        """That was all of it."""

    def on_job_failed(self, job: "Job", code: str, message: str) -> None:
        """There will be nothing, or nothing more."""


@dataclass(eq=False, slots=True)
class Job:
    """One utterance to hear, or one sentence to speak. ``name`` is its owner's."""

    name: str
    listener: JobListener
    number: int
    hears: bool
    worker: "_Worker | None" = None
    waiting: list[bytes] = field(default_factory=list)  # frames, until there is a process
    is_over: bool = False


class _Worker:
    """A process, and the jobs that it has."""

    def __init__(self, name: str, engines: tuple[str, str]) -> None:
        self.name = name
        self.engine = EngineProcess(engines)
        self.jobs: dict[int, Job] = {}
        self.is_ready = False

    def count(self, *, hears: bool) -> int:
        return sum(job.hears == hears for job in self.jobs.values())


class EnginePool:
    """One transceiver's. `start` on the running loop."""

    def __init__(self, speech_to_text: str, text_to_speech: str, processes: int, utterances: int) -> None:
        """``utterances``: at once in each process."""
        self._utterances = utterances
        engines = (speech_to_text, text_to_speech)
        self._workers = [_Worker(f"engines {number}", engines) for number in range(processes)]
        self._waiting: deque[Job] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_number = 0
        self._settled = asyncio.Event()  # a process is ready, or one could not be
        self._trouble = ""
        self.restarts = self.refused = self.failed = self.utterances = self.sentences = 0

    def start(self) -> None:
        """Start the processes; jobs may come before they are ready."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
            self._tasks.append(asyncio.create_task(self._watch()))

    async def wait_ready(self) -> None:
        """Return when a process can work. Raises ValueError when none will: a transceiver that cannot hear takes no calls."""
        self.start()
        try:
            async with asyncio.timeout(LOADED_WITHIN_S):
                await self._settled.wait()
        except TimeoutError:
            raise ValueError(f"no engine process was ready within {LOADED_WITHIN_S:g} s") from None
        if not any(worker.is_ready for worker in self._workers):
            raise ValueError(f"no engine process can run: {self._trouble}")

    async def close(self) -> None:
        """End the processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def counts(self) -> dict[str, int]:
        """What became of all jobs so far."""
        return {
            "utterances": self.utterances,
            "sentences": self.sentences,
            "failed": self.failed,
            "refused": self.refused,
            "restarts": self.restarts,
        }

    # ---- jobs

    def listen(self, name: str, listener: JobListener) -> Job:
        """An utterance begins."""
        self.utterances += 1
        job = self._make(name, listener, hears=True)
        if len(self._waiting) >= MAX_WAITING:
            self._refuse(job, "more people speak at once than speech to text has room for")
            return job
        job.waiting.append(build_frame(Kind.LISTEN, job.number))
        self._waiting.append(job)
        self._place()
        return job

    def feed(self, job: Job, pcm: bytes) -> None:
        """More of it."""
        self._send(job, Kind.FEED, pcm)

    def conclude(self, job: Job) -> None:
        """That was all of it."""
        self._send(job, Kind.CONCLUDE)

    def speak(self, name: str, listener: JobListener, text: str, voice: str, speed: float) -> Job:
        """Make speech of a sentence."""
        self.sentences += 1
        job = self._make(name, listener, hears=False)
        workers = [worker for worker in self._workers if worker.is_ready] or self._workers
        worker = min(workers, key=lambda one: one.count(hears=False))
        if worker.count(hears=False) * len(self._workers) >= MAX_SENTENCES:
            self._refuse(job, "more waits to be spoken than text to speech has room for")
            return job
        wanted = {"text": text, "voice": voice, "speed": speed}
        job.waiting.append(build_frame(Kind.SPEAK, job.number, json.dumps(wanted).encode()))
        self._give(job, worker)
        return job

    def forget(self, job: Job) -> None:
        """Nobody wants it any more."""
        if job.is_over:
            return
        worker = job.worker
        self._finish(job)
        if worker is not None:
            worker.engine.send(build_frame(Kind.FORGET, job.number))

    # ---- inside

    def _make(self, name: str, listener: JobListener, *, hears: bool) -> Job:
        self._last_number = self._last_number % 0xFFFFFFFF + 1
        return Job(name, listener, self._last_number, hears)

    def _place(self) -> None:
        """Give utterances that wait to processes that have room."""
        while self._waiting:
            worker = min(self._workers, key=lambda one: (not one.is_ready, one.count(hears=True)))
            if not worker.is_ready or worker.count(hears=True) >= self._utterances:
                return
            self._give(self._waiting.popleft(), worker)

    def _give(self, job: Job, worker: _Worker) -> None:
        if not worker.jobs:
            worker.engine.heard_at = time.monotonic()
        worker.jobs[job.number] = job
        job.worker = worker
        if worker.is_ready:
            self._send_waiting(job, worker)

    def _send_waiting(self, job: Job, worker: _Worker) -> None:
        frames, job.waiting = job.waiting, []
        if not worker.engine.send(b"".join(frames)):
            self._fail(job, "engine_busy", "an engine process does not keep up")

    def _send(self, job: Job, kind: Kind, payload: bytes = b"") -> None:
        if job.is_over:
            return
        frame = build_frame(kind, job.number, payload)
        if job.worker is None or not job.worker.is_ready:
            job.waiting.append(frame)
        elif not job.worker.engine.send(frame):
            self._fail(job, "engine_busy", "an engine process does not keep up")

    def _refuse(self, job: Job, message: str) -> None:
        self.refused += 1
        asyncio.get_running_loop().call_soon(self._fail, job, "engine_busy", message)  # not before it is returned

    def _fail(self, job: Job, code: str, message: str) -> None:
        if not job.is_over:
            self.failed += 1
            worker = job.worker
            self._finish(job)
            if worker is not None:
                worker.engine.send(build_frame(Kind.FORGET, job.number))
            _tell(lambda: job.listener.on_job_failed(job, code, message))

    def _finish(self, job: Job) -> None:
        job.is_over = True
        job.waiting.clear()
        worker, job.worker = job.worker, None
        if worker is not None:
            worker.jobs.pop(job.number, None)
            self._place()
        elif job in self._waiting:
            self._waiting.remove(job)

    # ---- a process

    async def _keep(self, worker: _Worker) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            engine = worker.engine
            engine.trouble = ""
            try:
                await engine.run(partial(self._take, worker))
            except (OSError, EOFError) as error:
                engine.trouble = engine.trouble or str(error)
            if worker.is_ready:
                retry_s = _FIRST_RETRY_S
            worker.is_ready = False
            self.restarts += 1
            trouble = engine.trouble or "it ended by itself"
            self._trouble = trouble
            self._settled.set()
            log.error("%s: %s; starting again in %g s", worker.name, trouble, retry_s)
            for job in list(worker.jobs.values()):
                self._fail(job, "engine_failed", f"the engine process ended: {trouble}")
            if not any(one.is_ready for one in self._workers):
                for job in list(self._waiting):
                    self._fail(job, "engine_failed", f"no engine process runs: {trouble}")
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, retry_s * 2)

    def _take(self, worker: _Worker, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.READY:
            worker.is_ready = True
            self._settled.set()
            for placed in list(worker.jobs.values()):
                self._send_waiting(placed, worker)
            self._place()
            return
        if kind is Kind.FAILED and number == 0:
            worker.engine.trouble = payload.decode(errors="replace")
            return
        job = worker.jobs.get(number)
        if job is None:
            return  # forgotten
        match kind:
            case Kind.SOUND:
                _tell(lambda: job.listener.on_sound(job, payload))
            case Kind.SPOKEN:
                self._finish(job)
                _tell(lambda: job.listener.on_spoken(job))
            case Kind.WORDS:
                self._finish(job)
                _tell(lambda: job.listener.on_words(job, payload.decode(errors="replace")))
            case Kind.FAILED:
                self._fail(job, "engine_failed", payload.decode(errors="replace"))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for worker in self._workers:
                if worker.jobs:
                    worker.engine.kill_if_it_hangs()


def _tell(tell: Callable[[], None]) -> None:
    try:
        tell()
    except Exception as error:
        log.error("a pipeline failed", exc_info=error)
