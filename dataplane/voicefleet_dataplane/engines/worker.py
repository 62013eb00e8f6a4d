"""One engine process: recognises several utterances at once, a piece at a time, and speaks sentences in between.

Started as ``python -m voicefleet_dataplane.engines.worker FD SPEECH_TO_TEXT TEXT_TO_SPEECH`` by shell/pipeline/engine_process.py; ends with its
socket. One thread reads, so that what is forgotten while it waits is never worked on; one thread works.

Owns: the engines of this process. Does not own: which job comes here.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue

from voicefleet_contract.outside import parse_json
from voicefleet_dataplane.engines.stages import (
    SPEECH_TO_TEXT,
    TEXT_TO_SPEECH,
    Recogniser,
    SpeechToText,
    TextToSpeech,
    find_engine,
)
from voicefleet_dataplane.engines.wire import HEADER, Kind, build_frame

log = logging.getLogger("voicefleet.engines")
_NICENESS = 5  # packets first
_Frame = tuple[Kind, int, bytes]


class Worker:
    """Works until its socket is closed."""

    def __init__(self, connection: socket.socket, listens: SpeechToText, speaks: TextToSpeech) -> None:
        self._socket = connection
        self._listens, self._speaks = listens, speaks
        self._idle: list[Recogniser] = [listens.open()]
        self._busy: dict[int, Recogniser] = {}
        self._queue: SimpleQueue[_Frame | None] = SimpleQueue()
        self._forgotten: set[int] = set()  # jobs that wait and need not be done

    def run(self) -> None:
        """Work."""
        threading.Thread(target=self._read, daemon=True).start()
        self._send(Kind.READY)
        while (frame := self._queue.get()) is not None:
            kind, job, payload = frame
            try:
                self._work(kind, job, payload)
            except ConnectionError:
                return
            except Exception as error:
                log.warning("an engine failed", exc_info=error)
                self._release(job)
                self._send(Kind.FAILED, job, str(error)[:500].encode())

    def _work(self, kind: Kind, job: int, payload: bytes) -> None:
        match kind:
            case Kind.LISTEN:
                recogniser = self._idle.pop() if self._idle else self._listens.open()
                self._busy[job] = recogniser
                recogniser.start()
            case Kind.FEED if job in self._busy and job not in self._forgotten:
                self._busy[job].feed(payload)
            case Kind.CONCLUDE if job in self._busy:
                words = self._busy[job].finish() if job not in self._forgotten else ""
                self._release(job)
                self._send(Kind.WORDS, job, words.encode())
            case Kind.SPEAK:
                self._speak(job, payload)
            case Kind.FORGET:
                self._release(job)
                self._forgotten.discard(job)

    def _speak(self, job: int, payload: bytes) -> None:
        if job in self._forgotten:
            return
        wanted = parse_json(payload, len(payload))
        for pcm in self._speaks.speak(wanted["text"], wanted["voice"], wanted["speed"]):
            if job in self._forgotten:
                return
            self._send(Kind.SOUND, job, pcm)
        self._send(Kind.SPOKEN, job)

    def _release(self, job: int) -> None:
        recogniser = self._busy.pop(job, None)
        if recogniser is not None:
            self._idle.append(recogniser)

    def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                length, kind, job = HEADER.unpack(self._exactly(HEADER.size))
                payload = self._exactly(length) if length else b""
                if kind == Kind.FORGET:
                    self._forgotten.add(job)
                self._queue.put((Kind(kind), job, payload))
        self._queue.put(None)

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _send(self, kind: Kind, job: int = 0, payload: bytes = b"") -> None:
        self._socket.sendall(build_frame(kind, job, payload))


def main(argv: list[str]) -> int:
    """Load the engines and work."""
    descriptor, speech_to_text, text_to_speech = argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the transceiver's, which closes our socket
    os.nice(_NICENESS)
    with socket.socket(fileno=int(descriptor)) as connection:
        try:
            listens = find_engine(SPEECH_TO_TEXT, speech_to_text)()
            speaks = find_engine(TEXT_TO_SPEECH, text_to_speech)()
            worker = Worker(connection, listens, speaks)
        except Exception as error:
            connection.sendall(build_frame(Kind.FAILED, 0, f"{type(error).__name__}: {error}"[:500].encode()))
            return 1
        with contextlib.suppress(OSError):  # the transceiver has gone
            worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
