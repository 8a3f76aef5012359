"""The list of an artifact's files is read as `sha256sum --check` reads it."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from quantuner.api.errors import ArtifactError
from quantuner.engine.checksums import SUMS_FILE, checked, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    seal(tmp_path)
    return tmp_path


def rewritten(folder: Path, old: str, new: str) -> None:
    sums = folder / SUMS_FILE
    sums.write_text(sums.read_text().replace(old, new))


def test_what_is_asked_for_is_kept(folder: Path) -> None:
    assert checked(folder, ["a"]) == {"a": b"1"}


@pytest.mark.parametrize(("old", "new"), [("  ", " *"), ("\n", "\n\n"), ("\n", "\r\n")])
def test_lines_may_be_of_binary_files_or_empty(folder: Path, old: str, new: str) -> None:
    rewritten(folder, old, new)
    assert checked(folder, ["a", "b"]) == {"a": b"1", "b": b"2"}


def test_a_folder_is_not_listed(folder: Path) -> None:
    (folder / "notes").mkdir()
    seal(folder)
    assert "notes" not in (folder / SUMS_FILE).read_text()
    assert subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=folder).returncode == 0


@pytest.mark.parametrize("line", ["text", f"{hashlib.sha256(b'1').hexdigest()} a", f"{'0' * 64}  ../a"])
def test_another_line_is_refused(folder: Path, line: str) -> None:
    (folder / SUMS_FILE).write_text(f"{line}\n")
    with pytest.raises(ArtifactError, match=r"has the line .* copy the folder again"):
        checked(folder, ["a"])


def test_what_is_no_text_is_refused(folder: Path) -> None:
    (folder / SUMS_FILE).write_bytes(b"\xff\xff")
    with pytest.raises(ArtifactError, match=r"SHA256SUMS is no text .* copy the folder again"):
        checked(folder, ["a"])
