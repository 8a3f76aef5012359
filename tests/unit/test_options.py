"""Options of a process: their defaults, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantuner import options


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = options.options()
    yield
    options.set_workspace(before.workspace)
    options.set_random_seed(before.random_seed)
    options.set_resume_from(before.resume_from)


def test_defaults() -> None:
    assert options.options() == options.Options(workspace=None, random_seed=1978, resume_from=None)


def test_what_is_set_holds(tmp_path: Path) -> None:
    options.set_workspace(str(tmp_path))
    options.set_random_seed(3)
    options.set_resume_from(tmp_path)
    assert options.options() == options.Options(tmp_path, 3, tmp_path)
    options.set_resume_from(None)
    assert options.options().resume_from is None


@pytest.mark.parametrize("seed", ["3", 3.0, True], ids=repr)
def test_a_seed_is_an_integer(seed: object) -> None:
    with pytest.raises(TypeError, match="random_seed must be an integer, not"):
        options.set_random_seed(seed)  # type: ignore[arg-type]


def test_what_is_resumed_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name the workspace of an earlier search, or its journal"):
        options.set_resume_from(tmp_path / "nothing")


def test_there_is_no_tensorboard() -> None:
    options.set_tensorboard(False)
    with pytest.raises(ValueError, match="use `quantuner report WORKSPACE`"):
        options.set_tensorboard(True)
