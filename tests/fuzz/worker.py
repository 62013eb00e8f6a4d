"""One target under atheris, in a process of its own: libFuzzer ends the process that it runs in."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.corpus import CORPUS, keep, read_corpus
from tests.fuzz.targets import load

HANGS_AFTER_S = 20
MOST_MEMORY_MB = 1_024


def main() -> None:
    name, seconds, found = sys.argv[1:4]
    within = len(sys.argv) > 4  # libFuzzer's own arguments
    ours = (
        ["voicefleet_contract", "voicefleet_listener", "voicefleet_dataplane", "voicefleet_operator"]
        if within
        else ["none"]
    )
    with atheris.instrument_imports(include=ours):
        target = load(name)
    if within:
        atheris.Setup(sys.argv[4:], lambda data: target.run(bytes(data)))
        atheris.Fuzz()
        return
    with tempfile.TemporaryDirectory() as directory:
        new, first, merged = (Path(directory) / part for part in ("new", "first", "merged"))
        for path in (new, first, merged):
            path.mkdir()
        for number, data in enumerate(read_corpus(target)):
            (first / str(number)).write_bytes(data)
        again = _program(Path(directory) / "again", name, seconds, found)
        limits = [f"-max_len={target.max_bytes}", f"-timeout={HANGS_AFTER_S}", f"-rss_limit_mb={MOST_MEMORY_MB}"]
        run = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-"]
        if target.words:
            words = Path(directory) / "words"
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
            run.append(f"-dict={words}")
        code = subprocess.run([again, *limits, *run, str(new), str(first)], check=False).returncode
        merge = [again, *limits, "-merge=1", "-use_counters=0", str(merged), str(first), str(new)]
        subprocess.run(merge, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known = {path.name for path in (CORPUS / name).glob("*")}
        seeds = {bytes(seed) for seed in target.seeds}
        kept = [data for data in (path.read_bytes() for path in merged.glob("*")) if data and data not in seeds]
        added = [path for path in (keep(name, data) for data in kept) if path.name not in known]
    print(f"{len(added)} inputs more in the corpus" + (f", EXIT {code}" if code else ""), flush=True)
    sys.exit(code)


def _program(path: Path, *arguments: str) -> str:
    """This worker as a program: libFuzzer starts itself again, by its name, to merge."""
    argv = [sys.executable, "-m", "tests.fuzz.worker", *arguments, str(path)]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    path.chmod(0o700)
    return str(path)


def _escaped(word: bytes) -> str:
    return "".join(f"{chr(92)}x{byte:02x}" for byte in word)  # a backslash


if __name__ == "__main__":
    main()
