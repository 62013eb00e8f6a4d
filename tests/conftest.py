"""Hypothesis without deadlines (no test asserts wall-clock time), and the same examples everywhere in CI.

`make check` asks for a tenth of the examples (tests/support/examples.py); everybody else runs all of them.
"""

import gc
import os

from hypothesis import HealthCheck, settings

from tests.support.examples import FULL, QUICK

_EXAMPLES = {"full": FULL, "quick": QUICK}[os.environ.get("VOICEFLEET_EXAMPLES", "full")]
settings.register_profile(
    "voicefleet", max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("voicefleet"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "voicefleet")


def pytest_collection_finish() -> None:
    """Take modules and tests out of the garbage collector's sight: it looked at them again and again, and they stay."""
    gc.collect()
    gc.freeze()
