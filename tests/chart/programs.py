"""The programs that the chart's tests run: helm and promtool."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.cluster.binaries import obtain
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

# The major versions whose words and whose edges of time windows the tests know, with the question for them.
MAJORS = {"helm": (4, ("version", "--short")), "promtool": (2, ("--version",))}


class ProgramMissingError(Exception):
    """A program is nowhere; the text says where it was looked for and how to get it."""


@cache
def program(name: str) -> Path:
    """The program that QUANTUNER_<NAME> names, else a fitting one on PATH, else the test cluster's, which is built."""
    variable = f"QUANTUNER_{name.upper()}"
    if named := os.environ.get(variable):
        if not os.access(named, os.X_OK):
            raise ProgramMissingError(f"{variable} names {named}, which is no program: correct or unset it")
        return Path(named)
    major, question = MAJORS[name]
    if (found := shutil.which(name)) and _major(found, *question) == major:
        return Path(found)
    try:
        return obtain(Layout.from_environment(), lambda line: print(line, file=sys.stderr))[name]  # noqa: T201
    except ClusterError as error:
        on_path = f"the one on PATH is not of version {major}" if found else "none is on PATH"
        raise ProgramMissingError(
            f"no {name}: {variable} is not set, {on_path}, and the test cluster has none ({error})"
        ) from None


def _major(program: str, *question: str) -> int | None:
    """The first number of what the program calls its version; None where it does not say."""
    try:
        done = subprocess.run([program, *question], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\bv?(\d+)\.\d+", done.stdout + done.stderr)
    return int(version[1]) if version and not done.returncode else None
