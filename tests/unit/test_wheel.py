"""The wheel has all that an image needs, not only all that a checkout has: an editable install finds what no list names."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "tests" / "support" / "wheel_probe.py"
PACKAGES = (
    "dataplane/voicefleet_contract",
    "dataplane/voicefleet_dataplane",
    "dataplane/voicefleet_listener",
    "operator/voicefleet_operator",
)
SOURCES_OF_DATA = "voicefleet_dataplane/fastpath/bpf/"  # of what a C compiler makes of them, only the program goes in
PROGRAM = SOURCES_OF_DATA + "relay.bpf.o"


def run(*argv: object, **more) -> str:
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False, timeout=100, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[str]:
    """What git tracks of the packages: leftovers of a checkout must not fill a hole."""
    files = run("git", "ls-files", *PACKAGES, cwd=ROOT).splitlines()
    return [file for file in files if (ROOT / file).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build it from a copy of the tracked files, and from the kernel's program as an image build compiles it."""
    source = tmp_path_factory.mktemp("source")
    for file in (*tracked(), "pyproject.toml", "README.md", "LICENSE"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, source / file)
    (source / "dataplane" / PROGRAM).write_bytes(b"compiled")
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    name = run(sys.executable, "-c", build, source, cwd=source).splitlines()[-1]
    return source / name


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Install it apart: an environment that finds this one's packages, and not its editable install."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "development.pth").write_text(
        f"{distribution('pytest').locate_file('')}\n"
    )  # .pth files there are not read
    run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--python",
        home / "bin" / "python",
        wheel,
    )
    return home


def test_every_tracked_module_and_file_of_data_is_in_the_wheel(wheel):
    there = set(zipfile.ZipFile(wheel).namelist())
    wanted = {file.split("/", 1)[1] for file in tracked()}
    wanted = {file for file in wanted if not file.startswith(SOURCES_OF_DATA)} | {PROGRAM}
    assert wanted - there == set()
    assert {name for name in there - wanted if ".dist-info/" not in name} == set()


def test_every_module_imports_every_entry_point_loads_and_every_command_has_help(installed):
    assert run(installed / "bin" / "python", "-I", PROBE).strip() == ""


@pytest.mark.parametrize(
    "command", ["voicefleet", "kubectl-voicefleet", "voicefleet-operator", "voicefleet-sessions-api"]
)
def test_an_installed_command_runs(installed, command):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VOICEFLEET_", "PYTHONPATH"))
    }
    assert run(installed / "bin" / command, "--help", env=environment, cwd=installed)
