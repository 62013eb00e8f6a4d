"""An API server's client of the least kind: JSON in, JSON out, as one user, over connections that stay open."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MERGE = "application/merge-patch+json"
_TIMEOUT_S = 30.0
_WATCH_S = 600.0


class ApiClient:
    """Requests to 127.0.0.1, from any thread. Close it."""

    def __init__(self, port: int, ca: Path, token: str) -> None:
        self._port, self._ca, self._token = port, ca, token
        self._idle: list[http.client.HTTPSConnection] = []

    def request(self, verb: str, path: str, body: Any = None, content: str = "application/json") -> tuple[int, Any]:
        """Return status and answer; (0, why) when there is no answer."""
        kept = self._idle.pop() if self._idle else None
        try:
            try:
                return self._ask(kept or self._connect(_TIMEOUT_S), verb, path, body, content)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if kept is None:
                    raise
                self.close()  # the server has closed this one, and the others with it
                return self._ask(self._connect(_TIMEOUT_S), verb, path, body, content)
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def _ask(
        self, connection: http.client.HTTPSConnection, verb: str, path: str, body: Any, content: str
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content}
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer.status, json.loads(raw) if raw[:1] == b"{" else raw.decode(errors="replace")

    def close(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def watch(self, path: str, going: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """All objects under a path, then every change; anew from the start when a watch ends, until ``going`` says no."""
        while going():
            connection = self._connect(_WATCH_S)
            try:
                connection.request("GET", f"{path}?watch=true", headers={"Authorization": f"Bearer {self._token}"})
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
        tls = ssl.create_default_context(cafile=str(self._ca))
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=tls, timeout=timeout_s)
