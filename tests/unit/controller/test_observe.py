from __future__ import annotations

from quantuner.api.journal import encode
from quantuner.controller.observe import replay
from tests.unit.controller.making import FINISHED, launched, observation, resource, support, trial


def test_a_sound_journal_is_replayed_whole() -> None:
    lines = [encode(record) for record in (launched(), trial(0), trial(1), FINISHED)]
    history, error = replay(lines)
    assert (len(history.trials), history.end, error) == (2, FINISHED, "")


def test_a_damaged_journal_is_read_up_to_the_damage() -> None:
    lines = [encode(launched()), encode(trial(0)), "{torn", encode(trial(1))]
    history, error = replay(lines)
    assert len(history.trials) == 1
    assert error.startswith("line 2: a journal line must be a JSON object")


def test_objects_of_others_are_not_taken_for_ours() -> None:
    objects = {i: {"metadata": {"name": i.name}} for i in support(resource())}
    seen = observation(objects=objects)
    assert seen.tuning_configmap is None
    assert seen.foreign == list(objects)
