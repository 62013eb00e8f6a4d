"""The programs beside us in the benches, in C and Go, and where they are built."""

import os
import subprocess
from pathlib import Path


def built() -> Path:
    """Where the peers are built: outside of the checkout, once for each version of their sources."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "voicefleet" / "bench"


def build_load() -> None:
    """Build load (C)."""
    built().mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-o", built() / "load", Path(__file__).parent / "load.c"], check=True)


def build_go(name: str) -> Path:
    """Build one of the Go modules here and return its program. Quick when nothing changed."""
    built().mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-o", built() / name, "."], check=True, cwd=Path(__file__).parent / name)
    return built() / name
