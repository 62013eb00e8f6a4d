"""One fleet for all stories. Whatever is missing is a failure: the `e2e` target has started the cluster before."""

from collections.abc import Iterator

import pytest

from e2e.cluster.steps import ClusterError
from e2e.fleet import Fleet
from e2e.kube import KubeError


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """The installed fleet, Ready."""
    running, problem = None, ""
    try:
        running = Fleet()
        running.install()
        running.wait_ready()
    except (ClusterError, KubeError, AssertionError) as error:
        problem = str(error)
    if running is None or problem:
        said = running.explain() if running is not None else ""
        pytest.fail(f"the fleet did not come up: {problem}\n{said}", pytrace=False)
    yield running
    if running.site.api is not None:
        running.site.api.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker("e2e")
        item.add_marker(pytest.mark.timeout(300))
    items.sort(key=lambda item: item.path.stem == "test_deletion")  # what takes the fleet away comes last
