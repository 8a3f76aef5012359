"""Content hashes: the names under which what was built is found again."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

DIGITS = 12
IGNORED = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache"}


def files_below(*roots: Path) -> list[Path]:
    """Every file at or below the roots that a build would read, in a fixed order."""
    found: set[Path] = set()
    for root in roots:
        candidates = root.rglob("*") if root.is_dir() else [root]
        found.update(
            path
            for path in candidates
            if path.is_file() and not IGNORED.intersection(path.parts) and path.suffix != ".pyc"
        )
    return sorted(found)


def fingerprint(base: Path, files: Iterable[Path], *extra: str) -> str:
    """The hash of the files' contents, of their names relative to the base, and of the texts.

    Every part is preceded by its length, so that no two lists of parts hash the same.
    """
    digest = hashlib.sha256()
    parts = [text.encode() for text in extra]
    for path in files:
        parts += [str(path.relative_to(base)).encode(), path.read_bytes()]
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()[:DIGITS]
