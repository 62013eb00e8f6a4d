"""The release before this one, out of the history: what an upgrade starts from, and what one goes back to.

Owns: which commit that is, and its files (sources of its images, its chart, its CRDs). Does not own: building (images.py).

A clone without that history (a shallow one, a tarball) has this checkout under another release number instead: upgrades are
then told between two builds that differ in nothing but what they call themselves, and it says so.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from e2e.cluster.places import CHECKOUT, cache
from e2e.cluster.steps import ClusterError, run, say

# Moves with each release: what users run when they upgrade.
COMMIT, RELEASE = "ef17955357f7d6285325129c3bfd80e29c2ccecf", "0.1.0"
TAG = "previous"
_PARTS = ("pyproject.toml", "README.md", ".dockerignore", "requirements", "dataplane", "operator", "charts", "crds")
_GIT = ("git", "-c", "safe.directory=*", "-C", str(CHECKOUT))
_SHALLOW = (
    f"the commit {COMMIT} (release {RELEASE}) is not in this clone: upgrades are told from this checkout under another "
    "release number; `git fetch --unshallow` brings the real one"
)


def in_history() -> bool:
    """Tell whether the release before this one can be had."""
    try:
        asked = subprocess.run([*_GIT, "cat-file", "-e", f"{COMMIT}^{{commit}}"], capture_output=True, check=False)
    except FileNotFoundError:  # no git: a tarball
        return False
    return asked.returncode == 0


@functools.cache
def tree() -> Path:
    """Return a folder with the files of the release before this one. Raises ClusterError."""
    if in_history():
        folder = cache() / "previous" / COMMIT
        return folder if folder.is_dir() else _made(folder, _from_history)
    say(f"            {_SHALLOW}")
    folder = cache() / "previous" / "this-checkout"
    shutil.rmtree(folder, ignore_errors=True)
    return _made(folder, _from_checkout)


def _made(folder: Path, fill: Callable[[Path], None]) -> Path:
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    fill(draft)
    draft.rename(folder)
    return folder


def _from_history(folder: Path) -> None:
    archive = folder / "tree.tar"
    run([*_GIT, "archive", "--format=tar", f"--output={archive}", COMMIT, *_PARTS])
    run(["tar", "--extract", "--file", str(archive), "--directory", str(folder)])
    archive.unlink()


def _from_checkout(folder: Path) -> None:
    for part in _PARTS:
        source = CHECKOUT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.o"))
        else:
            shutil.copy(source, folder / part)
    project = folder / "pyproject.toml"
    project.write_text(as_release(project.read_text(), RELEASE))


def as_release(project: str, release: str) -> str:
    """Return a pyproject.toml under another release number. Raises ClusterError."""
    changed, count = re.subn(r'(?m)^version = "[^"]*"$', f'version = "{release}"', project)
    if count != 1:
        raise ClusterError(f"pyproject.toml: {count} lines `version = …` instead of one")
    return changed
