"""Loads the user's code and calls it for a Task; says what is wrong where it cannot."""

import contextlib
import importlib
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from quantuner.api.conditions import Failure, shorten
from quantuner.api.errors import AbandonedError, SearchError
from quantuner.api.journal import ERROR_LIMIT, TRACEBACK_LIMIT
from quantuner.api.spec import TaskRef, digest
from quantuner.api.task import Task
from quantuner.api.trial import TrialResult
from quantuner.engine.remedies import remedy

logger = logging.getLogger(__name__)

SAID_LIMIT = 600  # characters of an exception's text; torch.export writes pages


def load_task(ref: TaskRef, code: Path | None) -> Task:
    """Imports `module:callable`, with the folder `code` first on the path, and calls it.

    Raises `SearchError` with the Python error's last line and where it was raised.
    """
    if code is not None:
        sys.path.insert(0, str(code))
    module_name, _, callable_name = ref.entrypoint.partition(":")
    with users_code(Failure.TASK_IMPORT_FAILED, f"importing {module_name}"):
        module = importlib.import_module(module_name)
    factory = getattr(module, callable_name, None)
    if not callable(factory):
        found = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise SearchError(
            Failure.TASK_CALLABLE_MISSING,
            f"spec.task.entrypoint names {callable_name!r}, but {module_name} ({module.__file__}) has no such "
            f"callable; it has {', '.join(found) or 'none'}",
        )
    with users_code(Failure.TASK_RAISED, f"calling {ref.entrypoint}"):
        task = factory(**ref.args)
    return _checked(task, ref)


def code_digest(ref: TaskRef, code: Path | None) -> str:
    """Identifies the modules that the task has loaded from the folder `code`, or else its own module."""
    own = sys.modules[ref.entrypoint.partition(":")[0]]
    loaded = [m for m in list(sys.modules.values()) if code is not None and _is_below(m, code)] or [own]
    files = {m.__file__ for m in loaded if m.__file__}
    return digest(sorted((Path(f).name, Path(f).read_text(encoding="utf-8", errors="replace")) for f in files))


def _is_below(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None) or ""
    return file.startswith(f"{folder}/") and "site-packages" not in file


def _checked(task: Any, ref: TaskRef) -> Task:
    if not isinstance(task, Task):
        raise SearchError(
            Failure.TASK_INVALID,
            f"{ref.entrypoint} must return a quantuner.Task, not {type(task).__name__}; "
            "return Task(model=…, calib_dataloader=…, eval_func=…)",
        )
    return task


@contextlib.contextmanager
def users_code(reason: Failure, doing: str) -> Iterator[None]:
    """Turns whatever the user's code raises into a `SearchError`.

    SystemExit and a Rust extension's panic, too, which are no `Exception`: a rank that just ends would leave
    the others waiting for it.
    """
    try:
        yield
    except (SearchError, AbandonedError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise user_error(reason, doing, error) from error


def user_error(reason: Failure, doing: str, error: BaseException) -> SearchError:
    """A SearchError that tells the innermost line of the user's code and what `error` says.

    The place comes first: what torch has to say may be long, and a trial's error is cut to a line. Where it is known
    what to change, that follows the first line of what torch says.
    """
    said = f"{type(error).__name__}: {error}".rstrip(": \n")
    advice = remedy(said)
    if advice:
        said = f"{said.splitlines()[0].rstrip('. ')}; {advice}"
    text = "".join(traceback.format_exception(error))
    return SearchError(reason, f"{doing} raised{_where(error)}: {shorten(said, SAID_LIMIT)}", text[-TRACEBACK_LIMIT:])


def failed_trial(error: Exception, doing: str, seconds: float, bound: float | None = None) -> TrialResult:
    """The result of a trial in which something was raised; it is logged whole, since its record is a line."""
    known = error if isinstance(error, SearchError) else user_error(Failure.INTERNAL_ERROR, doing, error)
    logger.warning("a trial failed: %s\n%s", known.message, known.traceback)
    return TrialResult(
        accuracy=None,
        bound=bound,
        seconds=seconds,
        error=shorten(known.message, ERROR_LIMIT),
        traceback=known.traceback,
    )


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent), "<")  # "<": generated code
    theirs = [f for f in frames if not f.filename.startswith(own)]
    # The user's line, not the library's that it called: the last one outside of installed packages.
    inner = [f for f in theirs if "site-packages" not in f.filename and "/lib/python" not in f.filename]
    # A task installed as a package.
    inner = inner or [f for f in theirs if "/site-packages/" in f.filename and "/site-packages/torch" not in f.filename]
    return f" at {Path(inner[-1].filename).name}:{inner[-1].lineno} in {inner[-1].name}" if inner else ""
