"""What the builder does when buildah fails; that it builds is what the cluster tests see."""

from pathlib import Path

import pytest

from tests.cluster import system
from tests.cluster.builder import ATTEMPTS, NOT_SEALED, Builder
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

BUILDAH = """#!/bin/sh
echo x >> "{asked}"
[ "$(wc -l < "{asked}")" -gt {failures} ] && exec echo built
echo "{says}" >&2
exit 1
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """How often buildah was asked, a line each; the program is a script, since no kernel is busy when it should be."""
    monkeypatch.setattr(system, "SEARCH_PATH", f"{tmp_path}:{system.SEARCH_PATH}")
    return tmp_path / "asked"


def buildah(asked: Path, failures: int, says: str) -> Builder:
    program = asked.parent / "buildah"
    program.write_text(BUILDAH.format(asked=asked, failures=failures, says=says))
    program.chmod(0o755)
    return Builder(Layout(state=asked.parent / "state", cache=asked.parent / "cache"))


def test_is_asked_again_where_the_kernel_was_busy(asked: Path) -> None:
    assert buildah(asked, ATTEMPTS - 1, f"Close_Fd {NOT_SEALED}").run("bud") == "built\n"


@pytest.mark.parametrize(("says", "times"), [(NOT_SEALED, ATTEMPTS), ("no such base", 1)])
def test_fails_with_what_buildah_said(asked: Path, says: str, times: int) -> None:
    with pytest.raises(ClusterError, match=says):
        buildah(asked, ATTEMPTS, says).run("bud")
    assert len(asked.read_text().split()) == times
