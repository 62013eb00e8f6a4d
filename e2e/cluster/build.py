"""Builds the cluster's programs once and keeps them in the cache under their hash.

Safe to kill (Go's own build cache keeps what was compiled; a finished module appears by rename) and to run twice at once
(a file lock). A version bump in one module builds that module again and no other.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.components import BUILD_ENVIRONMENT, BUILD_FLAGS, MODULES, GoModule, linker_flags, module_key, tree_key
from e2e.cluster.places import GOMOD, cache
from e2e.cluster.steps import ClusterError, run, say, step

PROGRESS_EVERY_S = 30.0
GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def target_platform() -> str:
    machine = platform.machine()
    return f"linux/{GO_ARCHITECTURES.get(machine, machine)}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"            waiting for another run of this program ({path})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build() -> Path:
    """The assembled tree with bin/ and cni/, built where the cache lacks it."""
    keys = [module_key(module, target_platform()) for module in MODULES]
    tree = cache() / tree_key(keys)
    if tree.is_dir():
        return tree
    with locked(cache() / "build.lock"):
        places = [
            _module(module, cache() / "modules" / f"{module.name}-{key}")
            for module, key in zip(MODULES, keys, strict=True)
        ]
        _assemble(tree, places)
    return tree


def build_go_program(source: Path) -> Path:
    """Build a test's own small Go module into the cache, under the hash of its files; gives the program."""
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    program = cache() / "programs" / f"{source.name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        draft = program.with_suffix(".draft")
        with step(f"build {source.name}"):
            run(["go", "-C", source, "build", *BUILD_FLAGS, "-o", draft, "."], env=os.environ | BUILD_ENVIRONMENT)
        draft.rename(program)
    return program


def build_alone(module: GoModule) -> Path:
    """The folder with the programs of a module that is no part of the cluster."""
    place = cache() / "modules" / f"{module.name}-{module_key(module, target_platform())}"
    if not place.is_dir():
        with locked(cache() / "build.lock"):
            _module(module, place)
    return place


def _assemble(tree: Path, places: list[Path]) -> None:
    if tree.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".tree-") as scratch:
        draft = Path(scratch) / "tree"
        for module, place in zip(MODULES, places, strict=True):
            folder = draft / module.folder
            folder.mkdir(parents=True, exist_ok=True)
            for program in module.programs:
                # Hard links, not symbolic ones: nodes see this tree bind-mounted, without its neighbours.
                os.link(place / program, folder / program)
        draft.rename(tree)


def _module(module: GoModule, place: Path) -> Path:
    if place.is_dir():
        return place
    if shutil.which("go") is None:
        raise ClusterError("Go is not installed; Kubernetes is built from its Go modules and needs Go 1.26 or later")
    place.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in place.parent.glob(f".{module.name}-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{module.name}-") as scratch:
        draft = Path(scratch) / "out"
        draft.mkdir()
        with step(f"build {module.name}: {' '.join(module.programs)}") as line:
            line.note = f"{_go_build(module, draft)} packages compiled"
        for made, wanted in module.renames:
            (draft / made).rename(draft / wanted)
        missing = [program for program in module.programs if not (draft / program).is_file()]
        if missing:
            raise ClusterError(f"go build of {module.name} did not write {', '.join(missing)}")
        draft.rename(place)
    return place


def _go_build(module: GoModule, out: Path) -> int:
    source = GOMOD / module.name
    log = cache() / f"build-{module.name}.log"
    flags = linker_flags((source / "go.mod").read_text())
    argv = ["go", "build", "-v", *BUILD_FLAGS, "-ldflags", flags, "-o", f"{out}/", *module.packages]
    environment = os.environ | BUILD_ENVIRONMENT
    compiled = 0
    ended = threading.Event()

    def progress() -> None:
        began = time.monotonic()
        while not ended.wait(PROGRESS_EVERY_S):
            say(f"{time.monotonic() - began:8.0f} s  … {module.name}: {compiled} packages compiled")

    watcher = threading.Thread(target=progress, daemon=True)
    watcher.start()
    with log.open("w") as copy:
        process = subprocess.Popen(
            argv, cwd=source, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for text in process.stdout or ():
                copy.write(text)
                # -v prints one import path a line; anything with a blank is a message.
                compiled += " " not in text.strip()
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            ended.set()
            watcher.join()
    if code != 0:
        raise ClusterError(f"go build of {module.name} failed", log)
    return compiled
