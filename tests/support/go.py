"""Programs in Go: built into this checkout's environment (.venv/go); Go itself keeps what it compiled, for all checkouts."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path


def build_go(module: Path) -> Path:
    """Build a module and return its program. Quick when nothing changed; several test processes may ask at once."""
    program = shutil.which("go")
    assert program, f"Go is missing: {module.name} needs the version that {module}/go.mod says, or later"
    home = Path(sys.prefix) / "go"
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        argv = [program, "build", "-o", str(home / module.name), "."]
        environment = os.environ | {"CGO_ENABLED": "0"}
        done = subprocess.run(argv, cwd=module, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"go build failed:\n{done.stderr[-3000:]}"
    return home / module.name
