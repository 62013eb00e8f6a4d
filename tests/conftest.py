"""Hypothesis without deadlines (no test asserts wall-clock time), and the same examples everywhere in CI."""

import gc
import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """Take modules and tests out of the garbage collector's sight: it looked at them again and again, and they stay."""
    gc.collect()
    gc.freeze()
