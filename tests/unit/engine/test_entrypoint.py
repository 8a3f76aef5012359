"""Loading the user's task: what is wrong with it is told with the error's words and the user's file and line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import TaskRef
from quantuner.api.task import Task
from quantuner.engine.entrypoint import load_task

GOOD = """
from quantuner import Task

def make(width=3):
    return Task(model=width, calib_dataloader=[], eval_func=lambda model: 1.0)
"""


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A folder for the task's modules, forgotten by Python afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("user_"):
            del sys.modules[name]


def loaded(code: Path, source: str, entrypoint: str = "user_task:make", **args: object) -> Task:
    (code / "user_task.py").write_text(source)
    return load_task(TaskRef(entrypoint, args), code)


def refused(code: Path, source: str, entrypoint: str = "user_task:make", **args: object) -> SearchError:
    with pytest.raises(SearchError) as caught:
        loaded(code, source, entrypoint, **args)
    return caught.value


def test_the_callable_gets_the_arguments_and_its_task_comes_back(code: Path) -> None:
    assert loaded(code, GOOD).model == 3
    assert loaded(code, GOOD, width=5).model == 5


def test_the_task_may_import_what_lies_beside_it(code: Path) -> None:
    (code / "user_helper.py").write_text("WIDTH = 11\n")
    assert loaded(code, "from user_helper import WIDTH\n" + GOOD.replace("=3", "=WIDTH")).model == 11


def test_the_users_folder_comes_first(code: Path) -> None:
    load_task(TaskRef("user_task:make"), _written(code, GOOD))
    assert sys.path[0] == str(code)


def _written(code: Path, source: str) -> Path:
    (code / "user_task.py").write_text(source)
    return code


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "import user_missing\n",
            "importing user_task raised at user_task.py:1 in <module>: "
            "ModuleNotFoundError: No module named 'user_missing'",
            id="a module it needs is missing",
        ),
        pytest.param(
            "\n\nx = 1 / 0\n",
            "importing user_task raised at user_task.py:3 in <module>: ZeroDivisionError: division by zero",
            id="it raises",
        ),
        pytest.param(
            "def make(:\n", "importing user_task raised at user_task.py:1: SyntaxError: ", id="a syntax error"
        ),
        pytest.param(
            "import sys\nsys.exit('no data here')\n",
            "importing user_task raised at user_task.py:2 in <module>: SystemExit: no data here",
            id="it exits",
        ),
    ],
)
def test_an_import_that_fails(code: Path, source: str, message: str) -> None:
    error = refused(code, source)
    assert error.reason == Failure.TASK_IMPORT_FAILED
    assert error.message.startswith(message)
    assert "Traceback" in error.traceback


def test_a_module_that_is_not_there_is_named_without_pythons_own_lines(code: Path) -> None:
    error = refused(code, GOOD, "user_nowhere:make")
    assert error.reason == Failure.TASK_IMPORT_FAILED
    assert error.message == "importing user_nowhere raised: ModuleNotFoundError: No module named 'user_nowhere'"


@pytest.mark.parametrize(
    ("entrypoint", "source", "found"),
    [
        ("user_task:mak", GOOD, "has no such callable; it has Task, make"),
        ("user_task:width", "width = 3\n", "has no such callable; it has none"),
    ],
    ids=["a misspelt name", "no callable"],
)
def test_a_callable_that_is_missing(code: Path, entrypoint: str, source: str, found: str) -> None:
    error = refused(code, source, entrypoint)
    assert error.reason == Failure.TASK_CALLABLE_MISSING
    assert f"spec.task.entrypoint names {entrypoint.partition(':')[2]!r}, but user_task" in error.message
    assert error.message.endswith(found)


RAISING = """
import json

def make(path="/nowhere"):
    return helper(path)

def helper(path):
    return json.loads("{" + path)
"""


def test_a_callable_that_raises_is_told_by_the_users_line_not_the_librarys(code: Path) -> None:
    error = refused(code, RAISING)
    assert error.reason == Failure.TASK_RAISED
    assert error.message.startswith("calling user_task:make raised at user_task.py:8 in helper: JSONDecodeError: ")


def test_arguments_it_does_not_take(code: Path) -> None:
    error = refused(code, GOOD, depth=1)
    assert error.reason == Failure.TASK_RAISED
    assert "make() got an unexpected keyword argument 'depth'" in error.message


@pytest.mark.parametrize(("value", "type_"), [("None", "NoneType"), ("{'model': 1}", "dict"), ("3", "int")])
def test_what_is_no_task(code: Path, value: str, type_: str) -> None:
    error = refused(code, f"def make():\n    return {value}\n")
    assert error.reason == Failure.TASK_INVALID
    assert error.message.startswith(f"user_task:make must return a quantuner.Task, not {type_}; return Task(")


def test_notes_and_several_lines_do_not_hide_the_error(code: Path) -> None:
    source = "def make():\n    e = ValueError('first\\nsecond')\n    e.add_note('a note')\n    raise e\n"
    assert refused(code, source).message == (
        "calling user_task:make raised at user_task.py:4 in make: ValueError: first\nsecond"
    )
