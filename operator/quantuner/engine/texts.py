"""Which texts a saved program may have: torch makes code of some, and writes others into code as they are."""

from __future__ import annotations

import re

_NAME = re.compile(r"[\w.<>:/+ -]*")
_ENDS_QUOTE = ('"', "\\", "'''")
"""Inductor writes messages into quotes, of C++ and of Python around it, and other texts into comments."""


def is_name(text: str) -> bool:
    """Whether a module, a parameter, a key or whatever is not told apart may be called so."""
    return bool(_NAME.fullmatch(text))


def is_node(text: str) -> bool:
    """Whether a value may be called so. With a dot it would be assigned to what is there, as a setting of torch."""
    return text == "" or text.isidentifier()


def is_quotable(text: str) -> bool:
    """Whether an operator may be given it, as a message."""
    return text.isprintable() and not any(mark in text for mark in _ENDS_QUOTE)
