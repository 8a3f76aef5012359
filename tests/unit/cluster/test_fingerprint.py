"""Equal content has an equal fingerprint, and any other content another."""

from pathlib import Path

import pytest

from tests.cluster.fingerprint import files_below, fingerprint


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("a")
    (tmp_path / "package" / "b.py").write_text("b")
    return tmp_path


def of(root: Path, *extra: str) -> str:
    return fingerprint(root, files_below(root / "package"), *extra)


def test_it_does_not_depend_on_where_the_files_lie(sources: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (sources / "package").rename(tmp_path / "moved")
    elsewhere.mkdir()
    (tmp_path / "moved").rename(elsewhere / "package")
    there = of(elsewhere)
    (elsewhere / "package").rename(sources / "package")
    assert of(sources) == there


def test_it_ignores_what_python_compiled(sources: Path) -> None:
    before = of(sources)
    (sources / "package" / "__pycache__").mkdir()
    (sources / "package" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    assert of(sources) == before


@pytest.mark.parametrize("change", ["content", "name", "extra", "boundary"])
def test_it_changes_with_what_it_stands_for(sources: Path, change: str) -> None:
    before, extra = of(sources, "x", "y"), ("x", "y")
    match change:
        case "content":
            (sources / "package" / "a.py").write_text("other")
        case "name":
            (sources / "package" / "a.py").rename(sources / "package" / "c.py")
        case "extra":
            extra = ("x", "z")
        case "boundary":
            extra = ("xy", "")
    assert of(sources, *extra) != before
