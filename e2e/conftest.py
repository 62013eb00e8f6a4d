"""One fleet for all stories. Whatever is missing is a failure: the `e2e` target has started the cluster before."""

import pytest

from e2e.cluster.steps import ClusterError
from e2e.fleet import Fleet


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The installed fleet, Ready."""
    running = Fleet()
    try:
        running.install()
        running.wait_ready()
    except (ClusterError, AssertionError) as error:
        pytest.fail(f"the fleet did not come up: {error}\n{running.explain()}", pytrace=False)
    return running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker("e2e")
        item.add_marker(pytest.mark.timeout(300))
    items.sort(key=lambda item: "deletion" in item.nodeid)  # what takes the fleet away comes last
