"""The layout rules that a tool cannot hold."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "dataplane" / "__init__.py").exists()


def test_packages_of_pyproject_are_the_packages_that_exist() -> None:

    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(init.parent.relative_to(ROOT / side).parts)
        for side in ("operator", "dataplane")
        for init in (ROOT / side).rglob("__init__.py")
    }
    assert declared == found


def test_no_file_has_more_than_400_lines():
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.c", "*.h"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    long = {name for name in tracked.stdout.split() if len((ROOT / name).read_text().splitlines()) > 400}
    assert not long
