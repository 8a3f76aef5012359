"""What the search keeps beside its journal about the best trial, read as what anybody may have written there.

On a cluster it stands in a ConfigMap that the task's own code can patch, and the operator reads it for all tenants.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONFIG = "\nconfig:"  # every op follows, which nobody needs here
SUMMARY_LIMIT = 128 * 1024  # characters; that of 1,000 ops which all differ has half of it


class Described(NamedTuple):
    trial: int
    summary: Mapping[str, Mapping[str, str]]
    """Of its configuration: `defaults` by type, `exceptions` by op."""


def without_config(best_yaml: str) -> str:
    """What stands before every op's configuration, which is all that can be long: about 200 bytes an op."""
    return best_yaml.partition(_CONFIG)[0].rstrip("\n") + "\n"


def described(best_yaml: str) -> Described | None:
    """None where there is nothing, or it is not what a search writes: the journal stands alone."""
    head = without_config(best_yaml)
    return _read(head) if len(head) <= SUMMARY_LIMIT else None


@lru_cache(maxsize=32)  # 16 MiB at most, whatever tenants write
def _read(head: str) -> Described | None:
    try:
        # An alias stands for as much as it likes, and one of aliases for more than there is memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(head, _LOADER)):
            return None
        found = yaml.load(head, _LOADER)  # noqa: S506 (it is a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return _checked(found)


def _checked(found: Any) -> Described | None:
    if not isinstance(found, Mapping):
        return None
    trial, summary = found.get("trial"), found.get("summary")
    if type(trial) is not int or not isinstance(summary, Mapping) or summary.keys() != {"defaults", "exceptions"}:
        return None
    plain = all(_is_texts(part) for part in summary.values())
    return Described(trial, summary) if plain else None


def _is_texts(part: Any) -> bool:
    return isinstance(part, Mapping) and all(isinstance(text, str) for pair in part.items() for text in pair)
