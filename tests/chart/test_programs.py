"""Nothing is built where a fitting program is at hand, and a missing one is one line that says what to do."""

import re
from pathlib import Path

import pytest

from tests.chart import programs
from tests.cluster.errors import ClusterError

find = programs.program.__wrapped__  # each test looks anew

SAYS = {
    "helm": {4: "v4.3", 3: "v3.19.0+g3d8990f"},
    "promtool": {
        2: "promtool, version 2.42.0+ds (branch: debian/sid)\\n  go version: go1.19.8",
        3: "promtool, version 3.5.0 (branch: HEAD)",
    },
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def obtain(*_: object) -> None:
        raise ClusterError("this machine has no Go: unpack it")

    monkeypatch.setattr(programs, "obtain", obtain)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in SAYS:
        monkeypatch.delenv(f"QUANTUNER_{name.upper()}", raising=False)


def install(folder: Path, name: str, says: str, code: int = 0) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '{says}\\n'\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_the_named_program_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "helm", SAYS["helm"][4])
    monkeypatch.setenv("QUANTUNER_HELM", "/bin/sh")
    assert find("helm") == Path("/bin/sh")


def test_named_program_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUANTUNER_HELM", str(tmp_path / "helm"))
    with pytest.raises(programs.ProgramMissingError, match=r"QUANTUNER_HELM names .*: correct or unset it"):
        find("helm")


@pytest.mark.parametrize("name", SAYS)
def test_one_on_path_is_used_before_anything_is_built(tmp_path: Path, name: str) -> None:
    installed = install(tmp_path, name, SAYS[name][programs.MAJORS[name][0]])
    assert find(name) == installed


@pytest.mark.parametrize(
    ("name", "says", "code"),
    [("helm", SAYS["helm"][3], 0), ("promtool", SAYS["promtool"][3], 0), ("helm", "who asks?", 0), ("helm", "", 1)],
)
def test_one_of_another_version_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, says: str, code: int
) -> None:
    install(tmp_path, name, says, code)
    with pytest.raises(
        programs.ProgramMissingError, match=f"the one on PATH is not of version {programs.MAJORS[name][0]}"
    ):
        find(name)
    monkeypatch.setattr(programs, "obtain", lambda *_: {name: Path("/built")})
    assert find(name) == Path("/built")


def test_nowhere() -> None:
    line = "no helm: QUANTUNER_HELM is not set, none is on PATH, and the test cluster has none (this machine has no Go"
    with pytest.raises(programs.ProgramMissingError, match=re.escape(line)):
        find("helm")
