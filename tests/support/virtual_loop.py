"""Coroutines in virtual time: when nothing can run, the clock jumps to the next timer. For pauses, never for real sockets."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector:
    """Waits for nobody: the time it was to wait goes by at once."""

    def __init__(self, loop: "_Loop", real: Any) -> None:
        self._loop, self._real = loop, real

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing to run and no timer: it would wait for ever"
        self._loop.now += timeout
        return self._real.select(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self._selector = _Selector(self, self._selector)

    def time(self) -> float:
        return self.now


def virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it; its `asyncio.sleep` and timeouts take no time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(coroutine)
