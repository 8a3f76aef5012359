"""Options of a process: their documented defaults, what is taken, and what is refused and leaves them as they were."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from quantuner import options


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = options.options()
    yield
    options.set_workspace(before.workspace)
    options.set_random_seed(before.random_seed)
    options.set_resume_from(before.resume_from)


@pytest.mark.parametrize(
    ("option", "default"),
    [
        pytest.param("workspace", None, id="a new folder, named by the time, for each search"),
        pytest.param("random_seed", 1978, id="the seed"),
        pytest.param("resume_from", None, id="nothing is continued"),
    ],
)
def test_a_default_is_the_documented_one(option: str, default: Any) -> None:
    assert getattr(options.options(), option) == default
    assert getattr(options.Options(), option) == default


def test_what_is_set_holds(tmp_path: Path) -> None:
    options.set_workspace(str(tmp_path))
    options.set_random_seed(3)
    options.set_resume_from(tmp_path)
    assert options.options() == options.Options(tmp_path, 3, tmp_path)


def test_each_option_is_set_alone(tmp_path: Path) -> None:
    options.set_workspace(tmp_path / "a")
    assert options.options() == options.Options(workspace=tmp_path / "a")
    options.set_workspace(None)
    options.set_resume_from(tmp_path)
    assert options.options() == options.Options(resume_from=tmp_path)
    options.set_resume_from(None)
    assert options.options() == options.Options()


def test_options_read_before_a_change_stay_as_they_were() -> None:
    before = options.options()
    options.set_random_seed(3)
    assert (before.random_seed, options.options().random_seed) == (1978, 3)
    with pytest.raises(FrozenInstanceError):
        before.random_seed = 4  # type: ignore[misc]


@pytest.mark.parametrize("spelling", [str, Path], ids=["text", "path"])
def test_a_workspace_is_kept_as_a_path_and_not_made(tmp_path: Path, spelling: type) -> None:
    options.set_workspace(spelling(tmp_path / "later"))
    assert options.options().workspace == tmp_path / "later"
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1], ids=str)
def test_a_seed_that_every_generator_takes_is_kept(seed: int) -> None:
    options.set_random_seed(seed)
    assert options.options().random_seed == seed


@pytest.mark.parametrize("seed", [-1, 2**32], ids=str)
def test_a_seed_that_numpy_has_no_generator_for_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"must be in \[0, 4294967295\], not {seed}; choose one in this range$"):
        options.set_random_seed(seed)
    assert options.options().random_seed == 1978


@pytest.mark.parametrize("seed", ["3", 3.0, True, None], ids=repr)
def test_a_seed_is_an_integer_and_a_refused_one_leaves_it(seed: object) -> None:
    with pytest.raises(TypeError, match=f"^random_seed must be an integer, not {seed!r}$"):
        options.set_random_seed(seed)  # type: ignore[arg-type]
    assert options.options().random_seed == 1978


@pytest.mark.parametrize("kind", ["workspace", "journal"])
@pytest.mark.parametrize("spelling", [str, Path], ids=["text", "path"])
def test_a_workspace_or_its_journal_is_continued(tmp_path: Path, kind: str, spelling: type) -> None:
    found = tmp_path if kind == "workspace" else tmp_path / "journal.jsonl"
    (tmp_path / "journal.jsonl").touch()
    options.set_resume_from(spelling(found))
    assert options.options().resume_from == found


def test_what_is_continued_must_exist_and_a_refused_one_leaves_it(tmp_path: Path) -> None:
    options.set_resume_from(tmp_path)
    missing = tmp_path / "nothing"
    with pytest.raises(FileNotFoundError, match="name the workspace of an earlier search, or its journal") as caught:
        options.set_resume_from(missing)
    assert str(missing) in str(caught.value)
    assert options.options().resume_from == tmp_path


def test_there_is_no_tensorboard_and_not_wanting_one_is_fine() -> None:
    options.set_tensorboard(False)
    with pytest.raises(ValueError, match="use `quantuner report WORKSPACE`, or the Grafana dashboard"):
        options.set_tensorboard(True)
