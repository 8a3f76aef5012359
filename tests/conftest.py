"""Tests that need the test cluster are run wherever it can be had; where not, the last lines say so loudly."""

import os

import pytest

from tests.cluster import ClusterError
from tests.cluster.cluster import EXISTING_CLUSTER
from tests.cluster.preflight import expect_able_machine

# Models of tests are tiny: on a busy machine torch's threads would wait for each other more than compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_NOT_RUN = pytest.StashKey[tuple[int, str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needy = [item for item in items if item.get_closest_marker("cluster")]
    reason = _lacking() if needy else ""
    if reason:
        config.stash[_NOT_RUN] = (len(needy), reason)
        for item in needy:
            item.add_marker(pytest.mark.skip(reason=reason))


def _lacking() -> str:
    """Why this machine can have no test cluster; empty where it can."""
    if os.environ.get(EXISTING_CLUSTER):
        return ""
    try:
        expect_able_machine()
    except ClusterError as error:
        return str(error)
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _NOT_RUN in config.stash:
        count, reason = config.stash[_NOT_RUN]
        terminalreporter.section("NOT TESTED HERE", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{count} tests on a real cluster were not run: {reason}", red=True)
