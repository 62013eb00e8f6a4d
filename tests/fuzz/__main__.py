"""`make fuzz SECONDS=60 [ONLY=stun]`: coverage-guided (atheris), each target for its share of the time, two at once.

What reaches new code is added to tests/fuzz/corpus/, smallest first; an input that crashes, hangs or eats memory stops its target, is
written to .venv/fuzz/ and makes the exit code 1: put it in the corpus, and its story in a unit test. Then processor time is measured
at N, 2N and 4N bytes (tests/fuzz/growth.py): the short run of `make test` counts steps of Python and does not see C.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.growth import look_at_growth
from tests.fuzz.targets import NAMES, load

FOUND = Path(__file__).parent.parent.parent / ".venv" / "fuzz"
AT_ONCE = 2


def fuzz(name: str, seconds: int) -> tuple[str, int, str]:
    argv = [sys.executable, "-m", "tests.fuzz.worker", name, str(seconds), str(FOUND)]
    run = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    return name, run.returncode, run.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, help="for all targets together")
    parser.add_argument("--only", default="", help="one target")
    options = parser.parse_args()
    names = [options.only] if options.only else NAMES
    share = max(1, options.seconds * min(AT_ONCE, len(names)) // len(names))
    FOUND.mkdir(parents=True, exist_ok=True)
    failed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, code, said in pool.map(lambda name: fuzz(name, share), names):
            lines = said.strip().splitlines()
            print(f"{name}: {lines[-1] if lines else 'said nothing'}")
            if code:
                failed.append(name)
                print(said[-4_000:])
    failed += look_at_growth([load(name) for name in names])
    sys.exit(f"error: look at {', '.join(failed)}; inputs are in {FOUND}" if failed else 0)


if __name__ == "__main__":
    main()
