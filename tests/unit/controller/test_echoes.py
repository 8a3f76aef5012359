"""Which events say nothing new."""

from __future__ import annotations

from typing import Any

import pytest

from quantuner.controller.echoes import Echoes
from quantuner.controller.objects import Key
from tests.unit.controller.making import resource

KEY = Key("ns", "digits")
STATUS = {"phase": "Starting"}


def seen(*, status: Any = STATUS, spec: Any = None, **meta: Any) -> dict[str, Any]:
    """The resource as an event shows it after the last look."""
    body = resource(**(spec or {}))
    return {**body, "metadata": {**body["metadata"], "resourceVersion": "8", **meta}, "status": status}


def test_our_own_write_is_an_echo_whatever_bookkeeping_came_with_it() -> None:
    echoes = Echoes()
    echoes.leave(KEY, resource(), STATUS)
    assert echoes.is_echo(KEY, seen())
    assert echoes.is_echo(KEY, seen(managedFields=[{"manager": "quantuner"}]))


def test_the_server_may_spell_a_number_otherwise() -> None:
    echoes = Echoes()
    echoes.leave(KEY, resource(), {"best": {"accuracy": 1.0, "sizes": [2.0, 0.5]}, "large": 1e21})
    assert echoes.is_echo(KEY, seen(status={"best": {"accuracy": 1, "sizes": [2, 0.5]}, "large": 10**21}))


@pytest.mark.parametrize(
    "body",
    [
        seen(status={"phase": "Complete"}),
        seen(status={}),
        seen(spec={"suspend": True}),
        seen(generation=4),
        seen(labels={"kueue.x-k8s.io/queue-name": "q"}),
        seen(deletionTimestamp="2026-11-30T12:00:00Z"),
    ],
)
def test_what_somebody_else_changed_is_none(body: dict[str, Any]) -> None:
    echoes = Echoes()
    echoes.leave(KEY, resource(), STATUS)
    assert not echoes.is_echo(KEY, body)


def test_a_resource_that_was_not_looked_at_or_is_forgotten_has_no_echo() -> None:
    echoes = Echoes()
    assert not echoes.is_echo(KEY, seen())
    echoes.leave(KEY, resource(), STATUS)
    echoes.forget(KEY)
    assert not echoes.is_echo(KEY, seen())
