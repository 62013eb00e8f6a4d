"""`make test`: its parts in order, what may overlap at the same time, and at the end how long each took and the slowest stories.

A part that fails does not keep the others from running: each tells something that the others do not, and a run is long. The exit code
is that of the first part that failed.

Parts of one stage run at the same time; the first one's output is shown as it comes, the others' when they end. What counts packets
or plays sound is never beside another such part.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = (("check",), ("kernel", "control-plane"), ("interop", "cluster-images"), ("e2e",))
SLOWEST = 10


@dataclass(frozen=True)
class Ended:
    """How a part went."""

    name: str
    seconds: float
    code: int
    beside: tuple[str, ...] = ()


def report(parts: Sequence[Ended], stories: Iterable[Mapping[str, object]], wall_s: float) -> str:
    """The table at the end. ``stories``: lines of conftest.py, several for each story."""
    lines = [f"{'part':<16}minutes"]
    for part in parts:
        notes = ["FAILED"] if part.code else []
        notes += [f"beside {', '.join(part.beside)}"] if part.beside else []
        lines.append(f"{part.name:<16}{part.seconds / 60:7.1f}  {'; '.join(notes)}".rstrip())
    lines.append(f"{'all':<16}{wall_s / 60:7.1f}")
    seconds: dict[str, float] = {}
    for line in stories:
        name = str(line["story"])
        seconds[name] = seconds.get(name, 0.0) + float(str(line["seconds"]))
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:SLOWEST]
    lines += ["", f"{'seconds':<9}the slowest stories, with what was set up for them first"]
    lines += [f"{took:7.1f}  {name}" for name, took in slowest]
    return "\n".join(lines)


def run_part(name: str, durations: Path, beside: tuple[str, ...], *, shown: bool) -> Ended:
    """Run one target of the Makefile."""
    environment = os.environ | {"VOICEFLEET_DURATIONS": str(durations)}
    began = time.monotonic()
    argv = ["make", "--no-print-directory", name]
    print(f"=== {name}" if shown else f"=== {name}, at the same time: its output follows when it ends", flush=True)
    if shown:
        code, said = subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode, ""
    else:
        done = subprocess.run(
            argv, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        code, said = done.returncode, f"=== {name}, which ran at the same time\n{done.stdout}"
    print(said, end="", flush=True)
    return Ended(name, time.monotonic() - began, code, beside)


def run_stage(names: Sequence[str], durations: Path) -> list[Ended]:
    """Run parts at the same time; how they went, in their order."""
    ended: dict[str, Ended] = {}

    def run(name: str, *, shown: bool) -> None:
        beside = tuple(other for other in names if other != name)
        ended[name] = run_part(name, durations, beside, shown=shown)

    others = [threading.Thread(target=run, args=(name,), kwargs={"shown": False}) for name in names[1:]]
    for thread in others:
        thread.start()
    try:
        run(names[0], shown=True)
    finally:
        for thread in others:
            thread.join()
    return [ended[name] for name in names]


def main() -> int:
    began, parts = time.monotonic(), list[Ended]()
    with tempfile.TemporaryDirectory(prefix="voicefleet-parts-") as folder:
        durations = Path(folder) / "durations"
        durations.touch()
        try:
            for stage in STAGES:
                parts += run_stage(stage, durations)
        except KeyboardInterrupt:
            print("interrupted; so far:", flush=True)
            parts.append(Ended("interrupted", 0.0, 130))
        stories = [json.loads(line) for line in durations.read_text().splitlines()]
    print("\n" + report(parts, stories, time.monotonic() - began), flush=True)
    return next((part.code for part in parts if part.code), 0)


if __name__ == "__main__":
    sys.exit(main())
