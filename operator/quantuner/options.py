"""What holds for every `fit` of this process. Source: the options of neural_compressor.utils.utility, 2.x."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Options:
    workspace: Path | None = None
    """Folder of the journal, the best model and deploy.yaml; None takes a new one, named by the time, for each."""
    random_seed: int = 1978
    """Of whatever a strategy draws, unless `strategy_kwargs` has a seed."""
    resume_from: Path | None = None
    """Journal, or workspace with one, that the next searches continue."""


_options = Options()


def options() -> Options:
    """The options in force."""
    return _options


def _set(**changes: object) -> None:
    global _options  # noqa: PLW0603 - the one place that changes it
    _options = replace(_options, **changes)  # type: ignore[arg-type]


def set_workspace(workspace: str | Path | None) -> None:
    """The folder in which `fit` keeps the journal and the best model; a search that it holds is continued."""
    _set(workspace=Path(workspace) if workspace is not None else None)


def set_random_seed(random_seed: int) -> None:
    """Raises what `checked_seed` raises."""
    _set(random_seed=checked_seed(random_seed))


def checked_seed(random_seed: object) -> int:
    """The seed. Raises `TypeError` for anything but an integer, `ValueError` for one that not every generator takes."""
    if isinstance(random_seed, bool) or not isinstance(random_seed, int):
        raise TypeError(f"random_seed must be an integer, not {random_seed!r}")
    if not 0 <= random_seed < 2**32:  # NumPy's range, the narrowest of the generators that are seeded
        raise ValueError(f"random_seed must be in [0, {2**32 - 1}], not {random_seed}; choose one in this range")
    return random_seed


def set_resume_from(resume_from: str | Path | None) -> None:
    """The search that `fit` continues: a journal or a workspace. Raises `FileNotFoundError` where there is none."""
    path = Path(resume_from) if resume_from is not None else None
    if path is not None and not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name the workspace of an earlier search, or its journal")
    _set(resume_from=path)


def set_tensorboard(tensorboard: bool) -> None:
    """Refused when true: there is no TensorBoard output; the log, `quantuner report` and Grafana show a search."""
    if tensorboard:
        raise ValueError("there is no TensorBoard output; use `quantuner report WORKSPACE`, or the Grafana dashboard")
