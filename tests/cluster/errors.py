"""The one error of the test cluster."""

from pathlib import Path

TAIL_LINES = 15


class ClusterError(Exception):
    """What went wrong with the test cluster: the rule, the value that broke it, the remedy."""


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented, for the end of an error's text."""
    if not path.exists():
        return f"    ({path} was not written)"
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text) or f"    ({path} is empty)"
