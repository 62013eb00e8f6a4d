"""One line a step, with its time; when a step fails, which log and its last lines.

Owns the words on the terminal. Steps may run in threads: each prints one whole line when it ends.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

TAIL_LINES = 20
_printing = threading.Lock()


class ClusterError(Exception):
    """Something the user can act on: a sentence, and the log that says more."""

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


def say(line: str) -> None:
    with _printing:
        print(line, flush=True)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def explain(error: ClusterError) -> str:
    if error.log is None:
        return f"error: {error}"
    indented = "\n".join("  | " + line for line in tail(error.log).splitlines())
    return f"error: {error}\n{indented}\n  log: {error.log}"


class Step:
    """What a step may add to its own line."""

    def __init__(self) -> None:
        self.note = ""


@contextmanager
def step(name: str) -> Iterator[Step]:
    began = time.monotonic()
    line = Step()
    try:
        yield line
    except BaseException:
        say(f"{time.monotonic() - began:8.1f} s  {name}: FAILED")
        raise
    note = f" ({line.note})" if line.note else ""
    say(f"{time.monotonic() - began:8.1f} s  {name}{note}")


def run(
    argv: Sequence[str | os.PathLike[str]], *, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a short program to its end and return what it printed."""
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed; `make deps` installs what the cluster needs") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-TAIL_LINES:]
        raise ClusterError(f"`{' '.join(words)}` ended with {done.returncode}:\n  " + "\n  ".join(said))
    return done.stdout


def succeeds(argv: Sequence[str | os.PathLike[str]]) -> bool:
    try:
        return subprocess.run([os.fspath(w) for w in argv], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def together(*jobs: Callable[[], object]) -> None:
    """Run jobs in threads; the first failure is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def wait_until(
    what: str, ready: Callable[[], bool], *, within_s: float, log: Path | None = None, every_s: float = 0.1
) -> None:
    """Poll from outside: the programs waited for are other people's and offer no event to await."""
    deadline = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {within_s:.0f} s", log)
        time.sleep(every_s)


def fail(error: ClusterError) -> int:
    print(explain(error), file=sys.stderr, flush=True)
    return 1
