"""The programs that the chart's tests run: helm and promtool."""

import os
import shutil
import sys
from functools import cache
from pathlib import Path

from tests.cluster.binaries import obtain
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout


class ProgramMissingError(Exception):
    """A program is nowhere; the text says where it was looked for and how to get it."""


@cache
def program(name: str) -> Path:
    """The program that QUANTUNER_<NAME> names, else the test cluster's pinned one, else the one on PATH."""
    variable = f"QUANTUNER_{name.upper()}"
    if named := os.environ.get(variable):
        if not os.access(named, os.X_OK):
            raise ProgramMissingError(f"{variable} names {named}, which is no program: correct or unset it")
        return Path(named)
    try:
        return obtain(Layout.from_environment(), lambda line: print(line, file=sys.stderr))[name]  # noqa: T201
    except ClusterError as error:
        if found := shutil.which(name):
            return Path(found)
        raise ProgramMissingError(
            f"no {name}: {variable} is not set, none is on PATH, and the test cluster has none ({error})"
        ) from None
