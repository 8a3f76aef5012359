"""What holds for every strategy that is registered, whatever it searches by.

On a small real model: any number of real ranks, and any of them after an interruption, tell what one process tells. On
an engine that a rule answers: interruptions at every trial, limits, and configurations that stay inside the space.
"""

import functools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, History, Outcome
from quantuner.distributed import mpirun
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, read_history
from quantuner.space.config import TuneConfig
from quantuner.strategy import TuneStrategy, strategies, strategy_class
from tests.unit.records import manifest
from tests.unit.strategy import contract_main
from tests.unit.strategy.judged import ended, essence, history_of
from tests.unit.strategy.ruled import OPS, Rule, asked, fallen, needing, never, searching

NAMES = [name for name in strategies() if strategy_class(name).__module__.startswith("quantuner.")]
EVERY_STRATEGY = pytest.mark.parametrize("name", NAMES)
LIMIT = 14
"""Trials: more than bayesian and tpe draw before they learn."""
REPOSITORY = Path(__file__).parents[3]
MINMAX = {"pattern": ".*", "activation": {"algorithm": ["minmax"]}}


# --- real ranks


def spec(name: str) -> dict[str, Any]:
    """A search that three of the four ops have to fall back in."""
    return {
        "task": {"entrypoint": "tests.unit.strategy.contract_task:task"},
        "quantization": {"opTypes": [MINMAX]},
        "accuracyCriterion": {"tolerableLoss": 0.004},
        "tuningCriterion": {"strategy": name, "maxTrials": LIMIT},
    }


def lines(workspace: Path) -> list[str]:
    return (workspace / JOURNAL_FILE).read_text().splitlines(keepends=True)


def prepare(workspace: Path, wanted: Mapping[str, Any], journal: Sequence[str]) -> None:
    workspace.mkdir()
    (workspace / contract_main.TUNING).write_text(yaml.safe_dump(manifest(wanted)))
    (workspace / JOURNAL_FILE).write_text("".join(journal))


def search(ranks: int, workspaces: Sequence[Path], rank: Callable[..., list[str]]) -> None:
    """`rank` is the fixture `forked_rank`."""
    launch = mpirun.local(ranks, rank(contract_main.__name__, *map(str, workspaces)))
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(launch.command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory, forked_rank: Callable[..., list[str]]) -> Callable[[int], Path]:
    """The folder in which so many ranks searched, with a workspace for each strategy.

    Two ranks also went on with the searches of one process, cut in half: their workspaces end in -half.
    """

    @functools.cache
    def searched(ranks: int) -> Path:
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        jobs: dict[str, tuple[str, list[str]]] = {name: (name, []) for name in NAMES}
        if ranks == 2:
            journals = {name: lines(searched(1) / name) for name in NAMES}
            jobs |= {f"{name}-half": (name, journal[: len(journal) // 2]) for name, journal in journals.items()}
        for workspace, (name, journal) in jobs.items():
            prepare(folder / workspace, spec(name), journal)
        search(ranks, [folder / workspace for workspace in jobs], forked_rank)
        return folder

    return searched


def told_in(workspace: Path) -> tuple[Any, ...]:
    """What must not depend on the ranks: the trials, how it ended, the winner's configuration."""
    history = read_history(workspace / JOURNAL_FILE)
    assert isinstance(history.end, Finished), history.end
    end = history.end
    return essence(history.trials), end.outcome, end.best, end.accuracy, (workspace / BEST_FILE).read_text()


@EVERY_STRATEGY
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_tell_the_trials_and_the_winner_of_one_process(
    on_ranks: Callable[[int], Path], ranks: int, name: str
) -> None:
    assert told_in(on_ranks(ranks) / name) == told_in(on_ranks(1) / name)
    assert read_history(on_ranks(ranks) / name / JOURNAL_FILE).launches[0].ranks == ranks


@EVERY_STRATEGY
def test_ranks_go_on_with_a_search_that_one_process_began(on_ranks: Callable[[int], Path], name: str) -> None:
    whole, half = on_ranks(1) / name, on_ranks(2) / f"{name}-half"
    assert told_in(half) == told_in(whole)
    kept = len(lines(whole)) // 2
    assert lines(half)[:kept] == lines(whole)[:kept]
    assert [launch.ranks for launch in read_history(half / JOURNAL_FILE).launches] == [1, 2]


@EVERY_STRATEGY
def test_no_configuration_is_tried_twice_and_the_limit_is_kept(on_ranks: Callable[[int], Path], name: str) -> None:
    tried = read_history(on_ranks(1) / name / JOURNAL_FILE).tried
    assert 1 < len({trial.digest for trial in tried}) == len(tried) <= LIMIT


# --- interruptions, limits and the space

RULES: Mapping[str, Rule] = {
    "nothing meets": never,
    "the default meets": needing(),
    "two ops have to fall back": needing("blocks.1.a", "stem"),
    "every third trial fails": lambda config: None if int(config.digest, 16) % 3 == 0 else needing("head")(config),
}


def shortened(history: History, trials: int) -> History:
    """As it was when the baseline and so many trials had been told."""
    return History(launches=[*history.launches], trials=history.trials[: trials + 1])


@EVERY_STRATEGY
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_wherever_it_was_interrupted_a_search_goes_on_without_trying_anything_again(name: str, rule: Rule) -> None:
    limits = {"maxTrials": 12}
    whole = searching(rule, name, limits=limits)
    end = ended(whole)
    assert len(asked(whole)) == len({config.digest for config in asked(whole)}) <= 12
    for trials in range(len(asked(whole)) + 1):
        resumed = searching(rule, name, limits=limits, resume=shortened(history_of(whole), trials))
        again = ended(resumed)
        assert asked(resumed) == asked(whole)[trials:]
        assert essence(history_of(resumed).trials) == essence(history_of(whole).trials)
        assert (again.outcome, again.best, again.accuracy) == (end.outcome, end.best, end.accuracy)


@EVERY_STRATEGY
@pytest.mark.parametrize("timeout", [0, 1000], ids=["until one meets", "for the best"])
def test_a_lower_limit_of_trials_ends_the_same_search_earlier(name: str, timeout: int) -> None:
    rule = RULES["two ops have to fall back"]
    whole = searching(rule, name, limits={"maxTrials": 12, "timeoutSeconds": timeout})
    ended(whole)
    for limit in (1, 2, 7, 11):
        limited = searching(rule, name, limits={"maxTrials": limit, "timeoutSeconds": timeout})
        ended(limited)
        assert asked(limited) == asked(whole)[:limit]


@EVERY_STRATEGY
@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_every_configuration_is_one_that_the_user_allows(name: str, approach: str) -> None:
    head = {"pattern": "head", "weight": {"dtype": ["fp32"]}}
    quantization = {"approach": approach, "opTypes": [MINMAX], "opNames": [head], "calibrationSamplingSizes": [8, 64]}
    strategy = searching(never, name, quantization=quantization, limits={"maxTrials": 24})
    ended(strategy)
    for config in asked(strategy):
        assert list(config) == list(OPS)
        assert "head" in fallen(config)
        quantized = [op for op in config.values() if not op.mode.is_precision]
        assert {op.get("activation", "algorithm") for op in quantized} <= {"minmax"}
        assert inside(config, strategy)


@EVERY_STRATEGY
def test_where_no_op_may_be_quantized_full_precision_is_tried(name: str) -> None:
    all_fp32 = {"opTypes": [{"pattern": ".*", "weight": {"dtype": ["fp32"]}}]}
    strategy = searching(never, name, quantization=all_fp32)
    assert ended(strategy).outcome is Outcome.EXHAUSTED
    assert [fallen(config) for config in asked(strategy)] == [frozenset(OPS)]


@EVERY_STRATEGY
def test_weights_in_few_bits_are_searched_inside_the_users_space_too(name: str) -> None:
    four_bits = {"pattern": "Linear", "weight": {"bits": [4], "algorithm": ["GPTQ", "RTN"]}}
    head = {"pattern": "head", "weight": {"bits": [8], "groupSize": [64, -1]}}
    quantization = {"approach": "weight_only", "opTypes": [four_bits], "opNames": [head]}
    strategy = searching(never, name, quantization=quantization, limits={"maxTrials": 24})
    ended(strategy)
    tried = [config for trial in asked(strategy) for config in trial.items() if not config[1].mode.is_precision]
    assert {mode.value for mode in {op.mode for _, op in tried}} == {"weight_only"}
    assert {(name == "head", op.get("weight", "bits")) for name, op in tried} == {(True, "8"), (False, "4")}
    assert {op.get("weight", "algorithm") for _, op in tried} <= {"GPTQ", "RTN"}
    assert all(inside(config, strategy) for config in asked(strategy))
    assert all("stem" in fallen(config) for config in asked(strategy))  # a convolution


def inside(config: TuneConfig, strategy: TuneStrategy) -> bool:
    """Whether every op has a mode and options of its own capability, and the size is one of those configured."""
    space = strategy.tuning_space
    return config.calib_sampling_size in space.calib_sampling_sizes and all(
        dict(config[c.op.name].options).keys() == c.modes[config[c.op.name].mode].keys()
        and all(option in c.modes[config[c.op.name].mode][item] for item, option in config[c.op.name].options)
        for c in space.capabilities
    )


@EVERY_STRATEGY
def test_an_argument_that_it_does_not_read_is_refused_with_those_that_it_does(name: str) -> None:
    accepted = strategy_class(name).accepts
    with pytest.raises(SearchError, match=f"reads no 'no_such_thing'; it reads {', '.join(accepted) or 'none'}$"):
        searching(never, name, kwargs={"no_such_thing": 1})
