"""The list of what an artifact's files were when they were saved, as `sha256sum --check` reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from quantuner.api.errors import ArtifactError

SUMS_FILE = "SHA256SUMS"
"""Of all other files."""
_DIGITS = 64  # of a SHA-256 in hexadecimal


def seal(folder: Path) -> None:
    """Lists the files that the folder has now. A folder in it, as of a user's notes, is none."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS_FILE)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def checked(folder: Path, keep: Collection[str]) -> dict[str, bytes]:
    """The contents of the files named `keep`, as far as the list has them; every file that it has is checked.

    What is kept is what was checked, whatever is written to the folder meanwhile. A file that the list has not, as a
    user's notes, is neither checked nor kept. Raises `FileNotFoundError` where there is no list, `ArtifactError` where
    a file is not what was saved.
    """
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise FileNotFoundError(f"{sums} does not exist; name the folder of a saved model")
    kept = {}
    for expected, name in _listed(sums):
        file, content = folder / name, None
        if name in keep and file.is_file():
            kept[name] = content = file.read_bytes()
        found = _sha256(file, content) if file.is_file() else "missing"
        if found != expected:
            raise ArtifactError(
                f"{file} is not what was saved: its SHA-256 is {found}, {SUMS_FILE} says {expected}; "
                "copy the folder again"
            )
    return kept


def _listed(sums: Path) -> Iterator[tuple[str, str]]:
    """(SHA-256, name) of every line, as sha256sum writes it, also where it reads files as binary ones."""
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{sums} is no text ({error}); copy the folder again") from error
    for line in filter(str.strip, lines):
        expected, name = line[:_DIGITS].lower(), line[_DIGITS + 2 :]
        if line[_DIGITS : _DIGITS + 2] not in ("  ", " *") or name in ("", ".", "..") or Path(name).name != name:
            raise ArtifactError(
                f"{sums} has the line {line!r:.80}, where a SHA-256 and a file's name are; copy the folder again"
            )
        yield expected, name


def _sha256(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        return hashlib.sha256(content).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
