"""The report at the end of `make test`, and the exit code of a run with a part that failed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import conftest
from tests.parts import SLOWEST, STAGES, Ended, report

ROOT = Path(__file__).parents[2]


def test_it_names_minutes_by_part_and_what_failed_and_the_slowest_stories_once():
    stories = [{"story": f"t.py::{number}", "seconds": number} for number in range(20)]
    stories += [{"story": "t.py::1", "seconds": 100.0}, {"story": "t.py::1", "seconds": 0.5}]
    parts = [Ended("check", 90.0, 0), Ended("kernel", 240.0, 2, ("control-plane",))]
    lines = report(parts, stories, 330.0).splitlines()
    assert lines[1].split() == ["check", "1.5"]
    assert lines[2].split() == ["kernel", "4.0", "FAILED;", "beside", "control-plane"]
    assert lines[3].split() == ["all", "5.5"]
    told = [line.split() for line in lines[6:]]
    assert told[0] == ["101.5", "t.py::1"]
    assert [name for _, name in told[1:]] == [f"t.py::{number}" for number in range(19, 20 - SLOWEST, -1)]


def test_every_part_is_a_target_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{part}:" in makefile for stage in STAGES for part in stage)


def test_a_part_that_fails_keeps_none_from_running_and_its_code_is_the_runs(tmp_path):
    program = tmp_path / "make"
    program.write_text(f"#!/bin/sh\necho $2 >> {tmp_path}/ran\n[ $2 != kernel ] || exit 3\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "tests.parts"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert sorted((tmp_path / "ran").read_text().split()) == sorted(part for stage in STAGES for part in stage)
    assert "FAILED" in done.stdout


def test_each_tests_time_is_added_by_the_process_that_was_asked_to_run_them(tmp_path, monkeypatch):
    file = tmp_path / "durations"
    monkeypatch.setenv("VOICEFLEET_DURATIONS", str(file))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    ran = SimpleNamespace(nodeid="t.py::1", duration=0.5)
    conftest.pytest_runtest_logreport(ran)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    conftest.pytest_runtest_logreport(ran)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"story": "t.py::1", "seconds": 0.5}]
