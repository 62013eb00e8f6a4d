"""Callers' sockets, and what brings a flow up: a datagram, sent until it is answered."""

import contextlib
import os
import secrets
import select
import socket
import time
from collections.abc import Iterator

from bench.netns import Namespaces


def open_sockets(
    namespaces: Namespaces, host: str, destination: tuple[str, int], count: int, first_port: int = 10_000
) -> list[socket.socket]:
    """Client sockets in the client's namespace, connected to a destination."""
    sockets = []
    with namespaces.entered(namespaces.client):
        for number in range(count):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setblocking(False)
            one.bind((host, first_port + number))
            one.connect(destination)
            sockets.append(one)
    return sockets


def until_all_answer(sockets: list[socket.socket], first: list[bytes], *, unique: bool = False) -> None:
    """Send each socket's datagram until an answer came; paced, so that no buffer overflows."""
    waiting = {one.fileno(): (one, data) for one, data in zip(sockets, first, strict=True)}
    with contextlib.closing(select.epoll()) as poll:
        for descriptor in waiting:
            poll.register(descriptor, select.EPOLLIN)
        for _ in range(20):
            for chunk in _chunks(list(waiting.values()), 100):
                for one, data in chunk:
                    one.send(data[:8] + secrets.token_bytes(12) + data[20:] if unique else data)
                _collect(poll, waiting, 0.02)
            _collect(poll, waiting, 0.3)
            if not waiting:
                return
    raise RuntimeError(f"{len(waiting)} of {len(sockets)} flows got no answer")


def _collect(poll: select.epoll, waiting: dict[int, tuple[socket.socket, bytes]], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while waiting:
        ready = poll.poll(max(0.0, deadline - time.monotonic()), 1000)
        if not ready:
            return
        for descriptor, _ in ready:
            with contextlib.suppress(OSError):
                os.read(descriptor, 2048)
            waiting.pop(descriptor, None)


def _chunks(items: list[tuple[socket.socket, bytes]], size: int) -> Iterator[list[tuple[socket.socket, bytes]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
