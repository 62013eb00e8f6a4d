"""An API server's client of the least kind: JSON in, JSON out, as one user, over connections that stay open."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

JSON = "application/json"
MERGE = "application/merge-patch+json"
_TIMEOUT_S = 30.0
_WATCH_S = 600.0


class ApiClient:
    """Requests to one API server, from any thread. Close it."""

    def __init__(self, host: str, port: int, tls: Callable[[], ssl.SSLContext], token: str = "") -> None:
        """``tls``: whom to believe, and our certificate where no token says who asks; asked for when it is needed."""
        self._address, self._tls = (host, port), tls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._idle: list[http.client.HTTPSConnection] = []

    def request(
        self, verb: str, path: str, body: Any = None, content: str = JSON, accept: str = JSON
    ) -> tuple[int, Any]:
        """Return status and answer; (0, why) when there is no answer."""
        headers = self._headers | {"Content-Type": content, "Accept": accept}
        kept = self._take()
        try:
            try:
                return self._ask(kept or self._connect(_TIMEOUT_S), verb, path, body, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if kept is None:
                    raise
                self.close()  # the server has closed this one, and the others with it
                return self._ask(self._connect(_TIMEOUT_S), verb, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def _ask(
        self, connection: http.client.HTTPSConnection, verb: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), dict(headers))
            answer = connection.getresponse()
            raw = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer.status, json.loads(raw) if raw[:1] == b"{" else raw.decode(errors="replace")

    def _take(self) -> http.client.HTTPSConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while (connection := self._take()) is not None:
            connection.close()

    def watch(self, path: str, going: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """All objects under a path, then every change; anew from the start when a watch ends, until ``going`` says no."""
        while going():
            connection = self._connect(_WATCH_S)
            try:
                connection.request("GET", f"{path}?watch=true", headers=self._headers)
                answer = connection.getresponse()
                if answer.status == 200:
                    yield from map(json.loads, answer)
                else:
                    time.sleep(0.2)  # a resource that was defined a moment ago
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.1)
            finally:
                connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._address, context=self._tls(), timeout=timeout_s)
