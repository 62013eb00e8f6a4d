"""The stacks: for each, how its client is started, and what it cannot do whoever is on the other side."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.go import build_go
from tests.support.npm import node_modules

_HERE = Path(__file__).parent
_DEBIANS_PYTHON = "/usr/bin/python3"  # GStreamer's bindings are a Debian package


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


def _pion_before(folder: str, imports: Mapping[str, str]) -> list[str]:
    """Build the client on Pion with the modules of a release of before."""
    source = Path(sys.prefix) / "go" / "src" / folder
    source.mkdir(parents=True, exist_ok=True)
    for name in ("go.mod", "go.sum"):
        shutil.copy(_HERE / folder / name, source / name)
    program = (_HERE / "pion" / "main.go").read_text()
    for newest, before in imports.items():
        program = program.replace(f'"github.com/pion/{newest}', f'"github.com/pion/{before}')
    (source / "main.go").write_text(program)
    return [str(build_go(source))]


_SMALL_BUFFER = dict.fromkeys(
    ("longest", "256 KB"), "it reads messages of 65,535 bytes, and its offer lets us send 65,536"
)

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
    Stack("Pion 4.0", lambda: _pion_before("pion_v4_0_0", {}), cannot=_SMALL_BUFFER, short=False),
    Stack(
        "Pion 3",
        lambda: _pion_before("pion_v3", {"webrtc/v4": "webrtc/v3", "ice/v4": "ice/v2"}),
        cannot=_SMALL_BUFFER,
        short=False,
    ),
    Stack(
        "GStreamer",
        lambda: [_DEBIANS_PYTHON, "-m", "tests.interop.matrix.stacks.gstreamer"],
        cannot={
            "256 KB": "it takes messages of 65,536 bytes",
            "any text": "its texts are C strings, which end at a zero byte",
            "empty": "it sends a chunk without data, which must be answered with ABORT (RFC 9260 section 6.2)",
            "negotiated": "webrtcbin takes no negotiated channel in a call that is up",
            "client hangs up": "a pipeline that ends says nothing",
            "client hangs up, audio alone": "a pipeline that ends says nothing",
            "we hang up, audio alone": "it heeds neither close_notify nor a check's 403",
        },
        short=False,
    ),
    Stack("libwebrtc in Node", lambda: _node("wrtc"), short=False),
)
