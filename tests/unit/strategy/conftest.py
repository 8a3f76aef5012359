"""Engines are captured once; each test sets the rule by which models are judged."""

from collections.abc import Iterator

import pytest

from quantuner.engine.engine import Engine
from tests.unit.strategy.judged import Judge, closeness, judged_engine


@pytest.fixture(scope="session")
def static_engine() -> tuple[Engine, Judge]:
    return judged_engine()


@pytest.fixture
def judge(static_engine: tuple[Engine, Judge]) -> Iterator[Judge]:
    judge = static_engine[1]
    judge.calls = 0
    yield judge
    judge.rule = closeness


@pytest.fixture
def engine(static_engine: tuple[Engine, Judge], judge: Judge) -> Engine:
    return static_engine[0]
