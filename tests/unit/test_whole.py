"""All parts at once: none is forgotten, none hides another's failure, none is left behind."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.layout import REPOSITORY
from tests.whole import PYTEST, Ended, parts, summary

SAY = [sys.executable, "-c"]
RUN = """
import asyncio, sys
from tests import whole
whole.parts = lambda: {parts}
sys.exit(asyncio.run(whole._main()))
"""


def _started(commands: dict[str, list[str]]) -> subprocess.Popen[str]:
    code = RUN.format(parts=commands)
    return subprocess.Popen([*SAY, code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _collected(command: Sequence[str]) -> set[Path]:
    """The modules that a part's pytest would run; of its arguments only folders and `--ignore` say which."""
    ignored = {Path(b) for a, b in itertools.pairwise(command) if a == "--ignore"}
    folders = {Path(word) for word in command if word.startswith("tests/")} - ignored
    modules = {module for folder in folders for module in (REPOSITORY / folder).rglob("test_*.py")}
    return {module for module in modules if not any(REPOSITORY / one in module.parents for one in ignored)}


def test_every_module_of_tests_is_in_one_part() -> None:
    found = parts("python")
    modules = [module for name in PYTEST for module in _collected(found[name])]
    assert sorted(modules) == sorted((REPOSITORY / "tests").rglob("test_*.py"))
    assert found["lint"][0] == "make"


def test_lines_are_told_whole_and_a_failure_fails_all_but_ends_none() -> None:
    slow = "import time, sys; sys.stdout.write('be'); sys.stdout.flush(); time.sleep(0.5); print('gun')"
    process = _started({"bad": [*SAY, "print('no'); raise SystemExit(3)"], "good": [*SAY, slow]})
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    lines = said.splitlines()
    assert set(lines[:2]) == {"bad  │ no", "good │ begun"}
    bad, good = sorted(lines[3:])
    assert re.fullmatch(r"bad  FAILED \(3\) after \d+ s: no", bad)
    assert re.fullmatch(r"good passed after \d+ s: begun", good)


def test_a_head_start_that_fails_fails_nothing() -> None:
    process = _started({"images": [*SAY, "raise SystemExit(3)"], "cluster": [*SAY, "pass"]})
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert "images  FAILED (3)" in said


def test_all_that_pass_pass() -> None:
    process = _started({"one": [*SAY, "pass"], "other": [*SAY, "pass"]})
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert said.count(" passed after ") == 2


CLEARING_UP = """
import os, time
try:
    print(os.getpid(), flush=True)
    time.sleep(600)
finally:
    print("cleared up")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_part_clears_up(number: signal.Signals) -> None:
    process = _started({"one": [*SAY, CLEARING_UP]})
    assert process.stdout is not None
    child = int(process.stdout.readline().split()[-1])
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "one │ cleared up\n" in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_line_for_each_part() -> None:
    ended = {"lint": Ended(0, 71.2, "fine"), "unit": Ended(1, 600, "1 failed, 2 passed in 599.80s")}
    assert summary(ended) == (
        "lint passed after 71 s: fine\nunit FAILED (1) after 600 s: 1 failed, 2 passed in 599.80s\n"
    )
