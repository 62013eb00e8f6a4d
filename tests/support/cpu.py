"""A budget of CPU time, for code that must be linear in what it reads.

The budget is many times what linear code takes and a small part of what quadratic code takes, so neither a slow nor a busy machine
decides the outcome: it is this process' own CPU time, not the clock on the wall.
"""

import contextlib
import signal


class TooMuchWorkError(Exception):
    """The budget is used up."""


@contextlib.contextmanager
def cpu_budget(seconds):
    def stop(signum, frame):
        raise TooMuchWorkError(f"more than {seconds:g} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
