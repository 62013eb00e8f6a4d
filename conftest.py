"""How long each test took, a line each, for the report at the end of `make test` (tests/parts.py).

Where VOICEFLEET_DURATIONS names a file, lines are added to it: the test runs of one `make test` share it.
"""

import json
import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add the time of one phase of a test: its set-up, itself, its end."""
    path = os.environ.get("VOICEFLEET_DURATIONS")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:  # who started the worker hears of its tests, too
        with Path(path).open("a") as file:
            file.write(json.dumps({"story": report.nodeid, "seconds": report.duration}) + "\n")
