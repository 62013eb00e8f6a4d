"""The stacks: for each, how its client is started, and what it cannot do whoever is on the other side."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.go import build_go

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack. `argv` builds what it needs; `cannot` has a reason for each check that asks too much of the stack itself."""

    name: str
    argv: Callable[[], list[str]]
    cannot: Mapping[str, str] = field(default_factory=dict)
    short: bool = True  # part of `make test`


def _python(name: str) -> list[str]:
    return [sys.executable, "-m", f"tests.interop.matrix.stacks.{name}"]


STACKS = (
    Stack(
        "aiortc",
        lambda: _python("aiortc_client"),
        cannot={
            "256 KB": "it takes 65,536 bytes, and says so",
            "any label": "it sends the length of a label in characters, not in bytes",
        },
    ),
    Stack("Pion", lambda: [str(build_go(_HERE / "pion"))]),
)
