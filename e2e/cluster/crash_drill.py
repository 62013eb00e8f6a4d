"""`python -m e2e.cluster.crash_drill`: interrupts and kills `up` at many moments and sees that nothing is left.

SIGINT must leave nothing by itself; after SIGKILL, `down` must find everything. Not part of `make e2e`: it takes the
cluster away under whoever uses it.
"""

import os
import signal
import subprocess
import sys
import time

from e2e.cluster.build import locked
from e2e.cluster.places import LOCK
from e2e.cluster.steps import ClusterError, fail, say
from e2e.cluster.teardown import leftovers, machine_state, tear_down

MOMENTS_S = (0.05, 0.2, 0.4, 0.8, 1.5, 2.5, 4.0, 6.0, 8.0)


def interrupted_up(after_s: float, with_signal: signal.Signals) -> None:
    up = subprocess.Popen(
        [sys.executable, "-m", "e2e.cluster", "up"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # The moment is the experiment: there is no event to wait for.
    time.sleep(after_s)
    # As a terminal does it: to the whole foreground process group.
    os.killpg(up.pid, with_signal)
    up.wait(timeout=60)


def drill() -> None:
    with locked(LOCK):
        tear_down()
        before = machine_state()
    for with_signal in (signal.SIGINT, signal.SIGKILL):
        for after_s in MOMENTS_S:
            interrupted_up(after_s, with_signal)
            with locked(LOCK):
                found = tear_down() if with_signal is signal.SIGKILL else []
                left = leftovers()
                changed = before.symmetric_difference(machine_state())
            if left or changed:
                raise ClusterError(
                    f"{with_signal.name} after {after_s} s left {', '.join(left)}; changed: {sorted(changed)}"
                )
            say(
                f"{with_signal.name:8} after {after_s:4} s: nothing left{' (cleaned up: ' + ', '.join(found) + ')' if found else ''}"
            )


if __name__ == "__main__":
    try:
        drill()
    except ClusterError as problem:
        sys.exit(fail(problem))
