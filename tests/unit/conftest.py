"""Processes that are forks of one which has imported torch, for tests that are shorter than its import.

The tests of `engine/fresh.py` and of `distributed` start theirs as users do.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantuner.distributed import forking
from quantuner.engine import fresh
from tests.unit import fresh_forks


@pytest.fixture
def fresh_forks_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "begin", fresh_forks.begin)


@pytest.fixture(scope="session")
def forked_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[str]]]:
    """A module and arguments to the command of a rank; there is one server for each module."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def folder(module: str) -> Path:
            made = tmp_path_factory.mktemp("forks")
            servers.enter_context(forking.serving(made, module))
            return made

        yield lambda module, *arguments: forking.client(folder(module), module, *arguments)
