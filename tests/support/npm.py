"""npm packages of other people, as they ship them: tests/npm names them, its lockfile pins them, `npm ci` installs them.

They go into this checkout's environment (.venv/npm), once for each lockfile; several test processes may ask at once.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

NPM = Path(__file__).parents[1] / "npm"


def node_modules() -> Path:
    """The folder with the packages, installed when it is not there yet."""
    lockfile = (NPM / "package-lock.json").read_bytes()
    home = Path(sys.prefix) / "npm"
    home.mkdir(parents=True, exist_ok=True)
    stamp = home / ".installed"
    digest = hashlib.sha256(lockfile).hexdigest()
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != digest:
            _install(home)
            stamp.write_text(digest)
    return home / "node_modules"


def _install(home: Path) -> None:
    program = shutil.which("npm")
    assert program, "npm is missing: install Node.js (20 or later) with npm"
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, home / name)
    argv = [program, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(argv, cwd=home, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"npm ci failed:\n{done.stdout}{done.stderr}"


def bundle(entry: str, name: str) -> str:
    """One script of everything that a file of tests/npm exports, in a global variable of that name."""
    modules = node_modules()
    source = modules.parent / entry
    shutil.copy(NPM / entry, source)  # beside the packages, where esbuild looks for them
    options = ["--bundle", "--format=iife", f"--global-name={name}", "--platform=browser", "--log-level=error"]
    argv = [str(modules / ".bin" / "esbuild"), str(source), *options, "--define:global=globalThis"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"esbuild failed:\n{done.stderr}"
    return done.stdout
