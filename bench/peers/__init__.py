"""The programs beside us in the benches, in C and Go, and where they are built."""

import os
import subprocess
from pathlib import Path


def built() -> Path:
    """Where the peers are built: outside of the checkout, once for each version of their sources."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "voicefleet" / "bench"


def build_peers() -> None:
    """Build load (C) and gorelay (Go). Both builds are quick when nothing changed."""
    here = Path(__file__).parent
    built().mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-o", built() / "load", here / "load.c"], check=True)
    subprocess.run(["go", "build", "-o", built() / "gorelay", "."], check=True, cwd=here / "gorelay")
