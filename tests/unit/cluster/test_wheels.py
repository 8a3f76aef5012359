"""Which build of torch an image gets, and packing an installed one up again."""

import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.cluster.wheels import offered_folder, pack, torch_build


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    return tmp_path / "wheels"


def test_a_folder_that_holds_torch_is_preferred(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", f"{wheels.parent} {wheels.parent / 'absent'} {wheels}")
    assert offered_folder() == wheels
    assert torch_build() == "2.13.0+cpu"


def test_a_folder_without_torch_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert offered_folder() is None


def test_a_package_is_packed_whole_and_without_what_its_installation_added(tmp_path: Path) -> None:
    installed = distribution("pytest")
    wheel = pack(installed, tmp_path)
    assert wheel.name == f"pytest-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = archive.read(f"pytest-{installed.version}.dist-info/RECORD").decode()
    assert {"pytest/__init__.py", f"pytest-{installed.version}.dist-info/METADATA"} <= names
    assert not any(name.endswith((".pyc", "INSTALLER")) or name.startswith("..") for name in names)
    assert {line.partition(",")[0] for line in record.splitlines()} == names
