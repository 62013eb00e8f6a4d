"""Work is counted, not timed: the interpreter's instructions that a call takes, the same on every machine and at every load.

What C code does in one of them is not seen here; `make fuzz` looks at processor time besides (tests/fuzz/growth.py).
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_steps(work: Callable[[], object]) -> int:
    """Return how many instructions of Python were run."""
    steps = 0

    def on_event(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            steps += 1
        return on_event

    before = sys.gettrace()
    sys.settrace(on_event)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps
