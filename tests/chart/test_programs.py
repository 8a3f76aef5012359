"""A missing program is one line that says what to do."""

import re
from pathlib import Path

import pytest

from tests.chart import programs
from tests.cluster.errors import ClusterError

find = programs.program.__wrapped__  # each test looks anew


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def obtain(*_: object) -> None:
        raise ClusterError("this machine has no Go: unpack it")

    monkeypatch.setattr(programs, "obtain", obtain)
    monkeypatch.delenv("QUANTUNER_HELM", raising=False)


def test_the_named_program_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTUNER_HELM", "/bin/sh")
    assert find("helm") == Path("/bin/sh")


def test_named_program_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUANTUNER_HELM", str(tmp_path / "helm"))
    with pytest.raises(programs.ProgramMissingError, match=r"QUANTUNER_HELM names .*: correct or unset it"):
        find("helm")


@pytest.mark.usefixtures("no_cluster")
def test_path_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    helm = tmp_path / "helm"
    helm.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("helm") == helm


@pytest.mark.usefixtures("no_cluster")
def test_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = "no helm: QUANTUNER_HELM is not set, none is on PATH, and the test cluster has none (this machine has no Go"
    with pytest.raises(programs.ProgramMissingError, match=re.escape(line)):
        find("helm")
