"""Every test here is root's, in namespaces of its own; without root it fails and says so: nothing is skipped."""

import os
from pathlib import Path

import pytest

from tests.support.namespaces import Namespace, mount_bpffs, private_mounts, unmount

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session", autouse=True)
def _own_mounts():
    if os.geteuid() != 0:
        pytest.fail("tests/kernel makes network namespaces and loads BPF programs: run it as root (make kernel)")
    private_mounts()


@pytest.fixture
def bpffs(tmp_path):
    """An empty BPF file system."""
    path = tmp_path / "bpf"
    path.mkdir()
    mount_bpffs(path)
    yield path
    unmount(path)


@pytest.fixture
def namespaces():
    """Makes network namespaces."""
    made = []

    def make():
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()
