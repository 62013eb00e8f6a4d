"""The files that only a gateway reads: bearer keys, the certificate that callers see, the place database.

Owns: reading them. Does not own: when they are read again (shell/process/watched_files.py), what they mean (core).
"""

import ssl
from pathlib import Path

import maxminddb

from voicefleet_contract import names
from voicefleet_dataplane.core.gateway.api_keys import ApiKeys
from voicefleet_dataplane.core.gateway.geo import Place
from voicefleet_dataplane.shell.process.watched_files import Watched


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
