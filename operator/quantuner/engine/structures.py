"""Which structures of inputs and outputs a saved program may have: torch makes Python objects of their description.

Every class that is registered with its pytree can be named there, of a default factory any module is imported, and
where keys are listed an object with `__enum__` imports what it names. A captured model takes and returns Python's own
containers, with plain keys. Source: torch 2.13, torch/utils/_pytree.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

KEYS = (str, int, float, bool, type(None))
"""What a key may be: the same after it was written to JSON and read."""
_FACTORIES = ("list", "dict", "set", "frozenset", "tuple", "str", "bytes", "int", "float", "complex", "bool", "object")
_PARTS = {"type", "context", "children_spec"}


def structure_problems(text: str, is_key: Callable[[str], bool]) -> Iterator[str]:
    """What hinders torch from reading the description `text`. Keys that are text are as `is_key` says."""
    protocol, structure = json.loads(text)
    if protocol != 1:
        yield f"a structure of protocol {protocol!r:.20}"
    yield from _problems(structure, is_key)


def _problems(structure: Any, is_key: Callable[[str], bool]) -> Iterator[str]:
    if (
        not isinstance(structure, dict)
        or structure.keys() != _PARTS
        or not isinstance(structure["children_spec"], list)
    ):
        yield f"the structure {structure!r:.80}"
        return
    if not _is_plain(structure["type"], structure["context"], len(structure["children_spec"]), is_key):
        yield f"the structure {structure['type']!r:.80} of {structure['context']!r:.80}"
    for part in structure["children_spec"]:
        yield from _problems(part, is_key)


def _is_plain(type_: Any, context: Any, parts: int, is_key: Callable[[str], bool]) -> bool:
    """Whether it is a container of Python's own with `parts` parts, or a single value."""
    if type_ is None:
        return context is None and parts == 0
    if type_ == "collections.defaultdict":
        return _is_factory(context) and _are_keys(context["dict_context"], parts, is_key)
    if not isinstance(context, str):
        return False
    said = json.loads(context)  # where `__enum__` stays text
    if type_ in ("builtins.dict", "collections.OrderedDict"):
        return _are_keys(said, parts, is_key)
    if type_ == "collections.deque":
        return said is None or isinstance(said, int)
    return type_ in ("builtins.tuple", "builtins.list") and said is None


def _is_factory(context: Any) -> bool:
    return (
        isinstance(context, dict)
        and context.get("default_factory_module") == "builtins"
        and context.get("default_factory_name") in _FACTORIES
    )


def _are_keys(keys: Any, parts: int, is_key: Callable[[str], bool]) -> bool:
    return (
        isinstance(keys, list)
        and len(keys) == parts
        and all(isinstance(key, KEYS) and (not isinstance(key, str) or is_key(key)) for key in keys)
    )
