"""The files that a gateway reads: keys, certificates, the place database; read again when they change.

Kubernetes replaces a mounted Secret by swapping a symbolic link, and certificates are renewed while calls come in. A
file that turns bad later is reported and the last good one stays in use (fail static); a file that is bad at start
stops the process, which then says why.

Owns: reading, and what "changed" means. Does not own: what the contents mean (contract, core).
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import maxminddb

from voicefleet_contract import names
from voicefleet_contract.keys import KeyRing
from voicefleet_dataplane.core.api_keys import ApiKeys
from voicefleet_dataplane.core.geo import Place

log = logging.getLogger("voicefleet.gateway")

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
        except (OSError, ValueError, ssl.SSLError, maxminddb.InvalidDatabaseError) as error:
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


def watch_api_keys(directory: Path) -> Watched[ApiKeys]:
    """Watch a directory with one bearer key a file (the file's name is the tenant)."""

    def files() -> list[Path]:
        # Kubernetes keeps the real files in `..data`: names with a dot in front are not keys.
        if not directory.is_dir():
            return []
        return sorted(path for path in directory.iterdir() if path.name[0] != "." and path.is_file())

    def read() -> ApiKeys:
        return ApiKeys({path.name: path.read_text("utf-8") for path in files()})

    return Watched(f"API keys in {directory}", files, read)


def watch_key_ring(path: Path) -> Watched[KeyRing]:
    """Watch the key ring of call ids."""
    return Watched(f"key ring {path}", lambda: [path], lambda: KeyRing.parse(path.read_text("utf-8")))


def watch_inner_tls(directory: Path, read: Callable[[Path], ssl.SSLContext]) -> Watched[ssl.SSLContext]:
    """Watch our certificate of the inner network."""
    paths = [directory / name for name in (names.TLS_CERT_FILE, names.TLS_KEY_FILE, names.TLS_CA_FILE)]
    return Watched(f"inner certificate in {directory}", lambda: paths, lambda: read(directory))


def watch_https(directory: Path) -> Watched[ssl.SSLContext]:
    """Watch the certificate that callers see. One context for ever: new handshakes use what was loaded into it last."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate, key = directory / names.TLS_CERT_FILE, directory / names.TLS_KEY_FILE

    def read() -> ssl.SSLContext:
        context.load_cert_chain(certificate, key)
        return context

    return Watched(f"HTTPS certificate in {directory}", lambda: [certificate, key], read)


class PlaceDatabase:
    """A MaxMind database of cities, or none: then nobody's place is known."""

    def __init__(self, path: Path | None) -> None:
        self._reader = maxminddb.open_database(path) if path else None

    def place(self, client: str) -> Place | None:
        """Return where an address is said to be."""
        record = self._reader.get(client) if self._reader else None
        location = record.get("location") if isinstance(record, dict) else None
        if not isinstance(location, dict):
            return None
        latitude, longitude = location.get("latitude"), location.get("longitude")
        if isinstance(latitude, (int, float)) and isinstance(longitude, (int, float)):
            return Place(float(latitude), float(longitude))
        return None


def watch_places(path: Path | None) -> Watched[PlaceDatabase]:
    """Watch the place database."""
    return Watched(f"place database {path}", lambda: [path] if path else [], lambda: PlaceDatabase(path))
