"""The programs of the chart's tests, and the chart with its default values."""

from pathlib import Path

import pytest

from tests.chart.helm import Helm, Rendered
from tests.chart.programs import ProgramMissingError, program


def _program(name: str) -> Path:
    try:
        return program(name)
    except ProgramMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(_program("helm"))


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _program("promtool")


@pytest.fixture(scope="session")
def defaults(helm: Helm) -> Rendered:
    """The chart as it is without any value but the images."""
    return helm.render()
