"""Files that a process works from, read again when they change.

Kubernetes replaces a mounted Secret by swapping a symbolic link, and certificates are renewed while calls come in. A
file that turns bad later is reported and the last good one stays in use (fail static); a file that is bad at start
stops the process, which then says why.

Owns: what "changed" means. Does not own: what the contents mean (contract, core).
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from voicefleet_contract import names
from voicefleet_contract.keys import KeyRing

log = logging.getLogger("voicefleet.files")

T = TypeVar("T")


class Watched(Generic[T]):
    """A value read from some paths. ``check`` reads again when one of them changed, and keeps the old value on error."""

    def __init__(self, what: str, paths: Callable[[], list[Path]], read: Callable[[], T]) -> None:
        self._what, self._paths, self._read = what, paths, read
        self._seen = self._stamp()
        self.value = read()
        self.problem = ""

    def check(self) -> bool:
        """Read again if anything changed; True when there is a new value."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.value = self._read()
        except (OSError, ValueError, RuntimeError) as error:
            self.problem = f"{self._what}: {error}"
            log.error("%s; the one read before stays in use", self.problem)
            return False
        self.problem = ""
        log.info("%s: read again", self._what)
        return True

    def _stamp(self) -> list[tuple[str, int, int, int]]:
        stamps = []
        for path in self._paths():
            try:
                status = path.stat()  # follows the link: a swapped Secret has another inode
            except OSError:
                stamps.append((str(path), 0, 0, 0))
            else:
                stamps.append((str(path), status.st_ino, status.st_mtime_ns, status.st_size))
        return stamps


def watch_key_ring(path: Path) -> Watched[KeyRing]:
    """Watch the key ring of call ids."""
    return Watched(f"key ring {path}", lambda: [path], lambda: KeyRing.parse(path.read_text("utf-8")))


def watch_inner_tls(directory: Path, read: Callable[[Path], ssl.SSLContext]) -> Watched[ssl.SSLContext]:
    """Watch our certificate of the inner network."""
    paths = [directory / name for name in (names.TLS_CERT_FILE, names.TLS_KEY_FILE, names.TLS_CA_FILE)]
    return Watched(f"inner certificate in {directory}", lambda: paths, lambda: read(directory))
