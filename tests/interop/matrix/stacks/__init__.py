"""The stacks: for each, how its client is started, and what it cannot do whoever is on the other side."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.go import build_go
from tests.support.npm import node_modules

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack. `argv` builds what it needs; `cannot` has a reason for each check that asks too much of the stack itself."""

    name: str
    argv: Callable[[], list[str]]
    cannot: Mapping[str, str] = field(default_factory=dict)
    short: bool = True  # part of `make test`


def _python(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"tests.interop.matrix.stacks.{name}", *arguments]


def _node(name: str) -> list[str]:
    program = shutil.which("node")
    assert program, "Node.js is missing: 20 or later"
    return [program, str(_HERE / f"{name}.js"), str(node_modules())]


STACKS = (
    Stack("Chromium", lambda: _python("browser", "Chromium")),
    Stack("Firefox", lambda: _python("browser", "Firefox")),
    Stack(
        "aiortc",
        lambda: _python("aiortc_client"),
        cannot={"any label": "it sends the length of a label in characters, not in bytes"},
    ),
    Stack("Pion", lambda: [str(build_go(_HERE / "pion"))]),
    Stack(
        "libdatachannel",
        lambda: _node("libdatachannel"),
        cannot={"client hangs up, audio alone": "it sends close_notify now and then only"},
    ),
    Stack(
        "werift",
        lambda: _node("werift"),
        cannot={
            "256 KB": "it takes messages of 65,536 bytes",
            "empty": "it sends a chunk without data, which must be answered with ABORT (RFC 9260 section 6.2)",
            "any label": "it sends the length of a label in characters, not in bytes",
            "client hangs up, audio alone": "it says nothing",
            "we hang up, audio alone": "it heeds neither close_notify nor a check's 403",
        },
        short=False,
    ),
    Stack("libwebrtc in Node", lambda: _node("wrtc"), short=False),
)
