"""Loads the user's code and calls it for a Task; says what is wrong where it cannot."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantuner.api.conditions import Failure, shorten
from quantuner.api.errors import SearchError
from quantuner.api.journal import TRACEBACK_LIMIT
from quantuner.api.spec import TaskRef
from quantuner.api.task import Task

SAID_LIMIT = 600  # characters of an exception's text; torch.export writes pages


def load_task(ref: TaskRef, code: Path | None) -> Task:
    """Imports `module:callable`, with the folder `code` first on the path, and calls it.

    Raises `SearchError` with the Python error's last line and where it was raised.
    """
    if code is not None:
        sys.path.insert(0, str(code))
    module_name, _, callable_name = ref.entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script calls sys.exit where it should raise
        raise user_error(Failure.TASK_IMPORT_FAILED, f"importing {module_name}", error) from error
    factory = getattr(module, callable_name, None)
    if not callable(factory):
        found = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise SearchError(
            Failure.TASK_CALLABLE_MISSING,
            f"spec.task.entrypoint names {callable_name!r}, but {module_name} ({module.__file__}) has no such "
            f"callable; it has {', '.join(found) or 'none'}",
        )
    return _checked(_call(factory, ref), ref)


def _call(factory: Callable[..., Any], ref: TaskRef) -> Any:
    try:
        return factory(**ref.args)
    except (Exception, SystemExit) as error:
        raise user_error(Failure.TASK_RAISED, f"calling {ref.entrypoint}", error) from error


def _checked(task: Any, ref: TaskRef) -> Task:
    if not isinstance(task, Task):
        raise SearchError(
            Failure.TASK_INVALID,
            f"{ref.entrypoint} must return a quantuner.Task, not {type(task).__name__}; "
            "return Task(model=…, calib_dataloader=…, eval_func=…)",
        )
    return task


def user_error(reason: Failure, doing: str, error: BaseException) -> SearchError:
    """A SearchError that tells the innermost line of the user's code and what `error` says.

    The place comes first: what torch has to say may be long, and a trial's error is cut to a line.
    """
    said = f"{type(error).__name__}: {error}".rstrip(": \n")
    text = "".join(traceback.format_exception(error))
    return SearchError(reason, f"{doing} raised{_where(error)}: {shorten(said, SAID_LIMIT)}", text[-TRACEBACK_LIMIT:])


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent), "<")  # "<": generated code
    theirs = [f for f in frames if not f.filename.startswith(own)]
    # The user's line, not the library's that it called: the last one outside of installed packages.
    inner = [f for f in theirs if "site-packages" not in f.filename and "/lib/python" not in f.filename]
    inner = inner or [f for f in theirs if "/site-packages/torch" not in f.filename]  # a task installed as a package
    return f" at {Path(inner[-1].filename).name}:{inner[-1].lineno} in {inner[-1].name}" if inner else ""
