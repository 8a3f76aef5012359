"""What a strategy may define, override and call, each in a real search. What it reads is in `test_reading.py`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, History, Outcome
from quantuner.config import PostTrainingQuantConfig
from quantuner.distributed import communicator
from quantuner.distributed.communicator import Communicator, OneRank, Solo
from quantuner.engine.engine import Engine
from quantuner.space.config import FP32, TuneConfig
from quantuner.strategy import BasicTuneStrategy, TuneStrategy
from quantuner.strategy.objectives import Result
from quantuner.strategy.overridden import traversed
from quantuner.strategy.search import MemoryRecorder
from tests.unit.engine.models import Net, images, seeded
from tests.unit.strategy.judged import (
    Judge,
    closeness,
    ended,
    essence,
    history_of,
    is_quantized,
    searching,
)
from tests.unit.strategy.ranked import LadderTuneStrategy, OneAtATime, on_ranks, rungs, searched, shared

# --- ways of asking


class DescentTuneStrategy(TuneStrategy):
    """Asks for one configuration at a time: for the next option of the linear only where the last was no worse."""

    def next_tune_cfg(self) -> Iterator[Any]:
        self.seen: list[float] = []
        config = self.cur_best_tuning_cfg
        yield config
        for index in (0, 3, 1, 2):
            before = self.last_tune_result.accuracy if self.last_tune_result else 0.0
            self.seen.append(before)
            tried = {**config, ("head", "Linear"): _options(self)[index]}
            yield tried
            if self.last_tune_result and self.last_tune_result.accuracy >= before:
                config = tried
        yield {**config, ("head", "Linear"): {"activation": {"dtype": "fp32"}, "weight": {"dtype": "fp32"}}}


def _options(strategy: TuneStrategy) -> list[Any]:
    """States of the linear, in the order of the search."""
    return [strategy.as_dict(config)["head", "Linear"].get_state() for config in rungs(strategy)[:4]]


@pytest.mark.parametrize("ranks", [2, 3])
def test_next_tune_cfg_is_asked_when_the_one_before_was_told_in_order_on_any_number_of_ranks(
    engine: Engine, tmp_path: Path, ranks: int
) -> None:
    several = shared(engine)
    serial = searched(lambda: searching(several, tmp_path, strategy=DescentTuneStrategy), 0)
    spread = searched(lambda: searching(several, tmp_path, strategy=DescentTuneStrategy), ranks, seed=ranks)
    assert isinstance(serial, DescentTuneStrategy)
    assert isinstance(spread, DescentTuneStrategy)
    trials = history_of(serial).trials
    assert essence(history_of(spread).trials) == essence(trials)
    assert len(trials) == 1 + 5
    assert spread.seen == serial.seen == [trials[i].accuracy for i in (1, 2, 3, 1)]  # the default again, from memory


class ListingTuneStrategy(LadderTuneStrategy):
    """Asks for lists of dicts: what the second holds depends on what the first was told."""

    def distributed_next_tune_cfg_lst(self, comm: Any) -> Iterator[list[Any]]:
        first = [self.as_dict(config) for config in rungs(self)[:4]]
        yield first
        yield [{**body, ("head", "Linear"): self.cur_best_tuning_cfg["head", "Linear"]} for body in first]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_lists_are_spread_over_the_ranks_and_told_in_order(engine: Engine, tmp_path: Path, ranks: int) -> None:
    several = shared(engine)
    serial = searched(lambda: searching(several, tmp_path, strategy=ListingTuneStrategy), 0)
    spread = searched(lambda: searching(several, tmp_path, strategy=ListingTuneStrategy), ranks, seed=7)
    assert essence(history_of(spread).trials) == essence(history_of(serial).trials)
    assert {trial.rank for trial in history_of(spread).tried} == set(range(1, ranks))
    assert {trial.rank for trial in history_of(serial).tried} == {0}


def test_the_lists_of_a_shipped_strategy_are_its_stages_as_dicts(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    lists = strategy.distributed_next_tune_cfg_lst(comm=None)
    stages = strategy.stages()
    for _ in range(2):
        assert [strategy.as_config(body) for body in next(lists)] == list(next(stages))


class TwoWaysTuneStrategy(ListingTuneStrategy):
    """The most derived class decides how it asks."""

    def next_tune_cfg(self) -> Iterator[Any]:
        yield self.as_dict(rungs(self)[4])


class NoWayTuneStrategy(TuneStrategy):
    """Defines nothing."""


class SilentTuneStrategy(TuneStrategy):
    """Has nothing to try."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        yield []


class RaisingTuneStrategy(TuneStrategy):
    """Has a defect."""

    def next_tune_cfg(self) -> Iterator[Any]:
        yield {("no", "Linear"): "static"}


def test_the_most_derived_way_of_asking_is_taken(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=TwoWaysTuneStrategy)
    ended(strategy)
    assert [trial.digest for trial in history_of(strategy).tried] == [rungs(strategy)[4].digest]


@pytest.mark.parametrize(
    ("strategy", "reason", "says"),
    [
        (
            NoWayTuneStrategy,
            Failure.STRATEGY_RAISED,
            "defines none of stages, distributed_next_tune_cfg_lst, next_tune",
        ),
        (
            SilentTuneStrategy,
            Failure.STRATEGY_RAISED,
            "SilentTuneStrategy asked for no configuration; let it yield one",
        ),
        (RaisingTuneStrategy, Failure.CONFIGURATION_INVALID, r"the model has no op \('no', 'Linear'\); the nearest"),
    ],
)
def test_a_strategy_with_a_defect_says_what_it_is(
    engine: Engine, tmp_path: Path, strategy: type[TuneStrategy], reason: str, says: str
) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        searching(engine, tmp_path, strategy=strategy).traverse()
    assert caught.value.reason == reason


class EndlessTuneStrategy(TuneStrategy):
    """Knows one configuration, and says it for ever: one at a time, or in one list."""

    def next_tune_cfg(self) -> Iterator[Any]:
        while True:
            yield self.as_dict(self.best_config)


class EndlessListTuneStrategy(TuneStrategy):
    """The same in one list."""

    def stages(self) -> Iterator[Iterator[TuneConfig]]:
        yield iter(lambda: self.best_config, None)


@pytest.mark.parametrize("strategy", [EndlessTuneStrategy, EndlessListTuneStrategy])
def test_a_strategy_that_only_repeats_itself_has_ended(
    engine: Engine, judge: Judge, tmp_path: Path, strategy: type[TuneStrategy]
) -> None:
    searched = searching(engine, tmp_path, strategy=strategy)
    assert (ended(searched).outcome, searched.trials_count, judge.calls) == (Outcome.EXHAUSTED, 1, 1 + 1 + 1)


# --- members that a subclass overrides


class LenientTuneStrategy(LadderTuneStrategy):
    """Has a rule of its own for what is good enough, and writes down what it was asked."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.asked_of: list[float] = []
        self.bests: list[TuneConfig] = []
        super().__init__(*arguments, **more)

    def meet_acc_req(self, eval_res: Result) -> bool:
        self.asked_of.append(eval_res[0])
        return len(self.asked_of) == 2

    def update_best_op_tuning_cfg(self, op_tuning_cfg: Any) -> tuple[float, dict[Any, Any]]:
        self.bests.append(op_tuning_cfg)
        return super().update_best_op_tuning_cfg(op_tuning_cfg)


@pytest.mark.parametrize("ranks", [0, 3])
def test_a_rule_of_ones_own_says_which_trial_meets(engine: Engine, tmp_path: Path, ranks: int) -> None:
    several = shared(engine)
    strategy = searched(lambda: searching(several, tmp_path, strategy=LenientTuneStrategy), ranks, seed=1)
    assert isinstance(strategy, LenientTuneStrategy)
    end = strategy.end
    assert isinstance(end, Finished)
    assert (end.outcome, end.best) == (Outcome.TARGET_MET, 2)
    assert strategy.asked_of == [trial.accuracy for trial in history_of(strategy).tried]
    assert [trial.meets for trial in history_of(strategy).tried] == [False, True]
    assert strategy.winner_config == rungs(strategy)[1]
    assert strategy.bests == rungs(strategy)[:2]


def test_a_resumed_search_keeps_what_a_rule_of_ones_own_has_said(engine: Engine, tmp_path: Path) -> None:
    whole = searching(engine, tmp_path, strategy=LenientTuneStrategy)
    ended(whole)
    known = History(launches=history_of(whole).launches, trials=history_of(whole).trials)
    resumed = searching(engine, tmp_path, strategy=LenientTuneStrategy, resume=known)
    assert (ended(resumed).best, resumed.trials_count) == (2, 2)
    assert isinstance(resumed, LenientTuneStrategy)
    assert (resumed.asked_of, resumed.bests) == ([], rungs(resumed)[:2])


class AlwaysTuneStrategy(LadderTuneStrategy):
    """Takes whatever comes."""

    def meet_acc_req(self, eval_res: Result) -> bool:
        return True


def test_a_trial_that_failed_meets_no_rule(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    judge.rule = lambda model: math.nan if is_quantized(model) and judge.calls == 2 else 0.5
    strategy = searching(engine, tmp_path, strategy=AlwaysTuneStrategy)
    assert ended(strategy).best == 2
    assert [trial.meets for trial in history_of(strategy).tried] == [False, True]


class RulelessTuneStrategy(LadderTuneStrategy):
    """Its rule has a mistake."""

    def meet_acc_req(self, eval_res: Result) -> bool:
        return bool(self.tune_data["target"])


def test_a_rule_that_raises_is_named_with_its_line(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"RulelessTuneStrategy raised at test_api.py:\d+ in meet_acc_req: KeyError"):
        searching(engine, tmp_path, strategy=RulelessTuneStrategy).traverse()


class StubbornTuneStrategy(LadderTuneStrategy):
    """Nothing is better than the default."""

    def update_best_op_tuning_cfg(self, op_tuning_cfg: Any) -> tuple[float, dict[Any, Any]]:
        return self.cur_best_acc, self.cur_best_tuning_cfg


def test_a_best_of_ones_own_is_the_best(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=StubbornTuneStrategy)
    default = strategy.best_config
    ended(strategy)
    assert (strategy.best_config, strategy.cur_best_acc) == (default, -math.inf)


class RecipesTuneStrategy(BasicTuneStrategy):
    """Applies recipes in its own way, as a user of Neural Compressor writes it."""

    def apply_all_tuning_recipes(self, tune_cfg: Any) -> Any:
        self.first = tune_cfg
        return {**tune_cfg, ("stem.0", "Conv2d"): FP32_STATE}

    def apply_recipe_one_by_one(self, tune_cfg: Any) -> Iterator[Any]:
        yield {**tune_cfg, ("head", "Linear"): FP32_STATE}


FP32_STATE = {"activation": {"dtype": "fp32"}, "weight": {"dtype": "fp32"}}


def test_recipes_are_applied_as_a_subclass_does(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=RecipesTuneStrategy, limits={"maxTrials": 18})
    ended(strategy)
    told = [strategy.state.configs[trial.digest] for trial in history_of(strategy).tried]
    assert isinstance(strategy, RecipesTuneStrategy)
    assert strategy.first == strategy.as_dict(told[0])
    assert told[1] == told[0].having({"stem.0": FP32})
    assert told[17]["head"] == FP32


class CallingTuneStrategy(BasicTuneStrategy):
    """Does as the base class."""

    def apply_all_tuning_recipes(self, tune_cfg: Any) -> Any:
        return super().apply_all_tuning_recipes(tune_cfg)

    def apply_recipe_one_by_one(self, tune_cfg: Any) -> Iterator[Any]:
        yield from super().apply_recipe_one_by_one(tune_cfg)


def test_recipes_of_a_subclass_that_calls_super_are_those_of_the_base(engine: Engine, tmp_path: Path) -> None:
    limits = {"maxTrials": 20}
    plain = searching(engine, tmp_path, recipes={}, limits=limits)
    calling = searching(engine, tmp_path, strategy=CallingTuneStrategy, recipes={}, limits=limits)
    ended(plain)
    ended(calling)
    assert essence(history_of(calling).trials) == essence(history_of(plain).trials)


def test_all_recipes_are_said_in_the_dict_by_their_last_option(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, recipes={"firstConvOrMatmulQuantization": True})
    given = strategy.cur_best_tuning_cfg
    body = strategy.apply_all_tuning_recipes(given)
    assert body["recipe_cfgs"] == {"last_conv_or_matmul_quantization": False}
    assert given["recipe_cfgs"] == {}
    assert strategy.as_config(body) == strategy.apply_all_tuning_recipes(strategy.best_config)


def test_a_beginning_of_ones_own_that_nobody_reads_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^HalfTuneStrategy has an initial_tuning_cfg of its own, which BasicTuneS"):

        class HalfTuneStrategy(BasicTuneStrategy):
            def initial_tuning_cfg(self) -> Any:
                return super().initial_tuning_cfg()


class BeginningTuneStrategy(TuneStrategy):
    """Reads its own beginning."""

    def initial_tuning_cfg(self) -> Any:
        op_modes, modes, configs = super().initial_tuning_cfg()
        return op_modes, modes, {**configs, ("head", "Linear"): FP32_STATE}

    def next_tune_cfg(self) -> Iterator[Any]:
        yield self.initial_tuning_cfg()[2]


def test_a_beginning_of_ones_own_that_is_read_is_taken(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=BeginningTuneStrategy)
    ended(strategy)
    assert strategy.best_config["head"] == FP32


# --- ranks


def test_the_handles_of_master_and_slaves_search_together(engine: Engine, tmp_path: Path) -> None:
    several = shared(engine)

    def take(comm: Communicator) -> Any:
        strategy = searching(several, tmp_path, strategy=LadderTuneStrategy)
        return strategy.slave_worker_handle(comm) if comm.rank else strategy.master_worker_handle(comm)

    end, *served = on_ranks(3, take, seed=1)
    assert isinstance(end, Finished)
    assert (end.outcome, end.best) == (Outcome.EXHAUSTED, 4)
    assert sum(served) == 5
    assert min(served) > 0


def test_a_master_without_slaves_is_refused(engine: Engine, tmp_path: Path) -> None:
    (answer,) = on_ranks(1, searching(engine, tmp_path).master_worker_handle)
    with pytest.raises(ValueError, match="a master needs at least one slave"):
        raise answer


def test_distributed_traverse_ends_on_rank_0_and_names_every_host(engine: Engine, tmp_path: Path) -> None:
    several = shared(engine)
    strategies = [searching(several, tmp_path, strategy=LadderTuneStrategy) for _ in range(3)]

    def take(comm: Communicator) -> Any:
        strategies[comm.rank].comm = comm
        return strategies[comm.rank].distributed_traverse()

    end, *others = on_ranks(3, take)
    assert isinstance(end, Finished)
    assert others == [None, None]
    (launch,) = history_of(strategies[0]).launches
    assert (launch.ranks, len(launch.hosts)) == (3, 3)
    assert [history_of(strategy).trials for strategy in strategies[1:]] == [[], []]


def test_a_communicator_that_a_search_makes_is_closed_and_one_that_it_was_given_is_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []

    class Closable(Solo):
        def __init__(self, comm: Any = None) -> None:
            super().__init__()
            self.given = comm

        def close(self) -> None:
            closed.append(self.given)

    monkeypatch.setattr(communicator, "MpiWorld", Closable)
    strategy = searching(engine, tmp_path, strategy=LadderTuneStrategy)
    strategy.comm = Closable()
    strategy.distributed_traverse()
    assert closed == []
    strategy.comm = None
    strategy.distributed_traverse()
    assert closed == []  # nobody launched ranks
    monkeypatch.setenv("PMIX_RANK", "0")
    strategy.distributed_traverse()
    assert closed == [None]
    of_mpi = OneRank()
    with pytest.raises(ValueError, match="a master needs at least one slave"):
        strategy.master_worker_handle(of_mpi)
    assert closed == [None, of_mpi]
    with pytest.raises(ValueError, match="nobody to receive from"):
        strategy.slave_worker_handle(of_mpi)
    assert closed == [None, of_mpi, of_mpi]


class NarrowingTuneStrategy(BasicTuneStrategy):
    """Overrides every way into a search, and changes what is searched in the outermost."""

    entered: list[Any]

    def traverse(self) -> Finished | None:
        self.entered = ["traverse"]
        self.set_tuning_space(PostTrainingQuantConfig(op_type_dict={"Conv2d": {"weight": {"dtype": ["fp32"]}}}))
        return super().traverse()

    def distributed_traverse(self) -> Finished | None:
        self.entered.append("distributed_traverse")
        return super().distributed_traverse()

    def master_worker_handle(self, comm: Any) -> Finished:
        self.entered.append((comm.Get_rank(), comm.Get_size()))
        return super().master_worker_handle(comm)

    def slave_worker_handle(self, comm: Any) -> int:
        self.entered.append((comm.Get_rank(), comm.Get_size()))
        return super().slave_worker_handle(comm)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_overrides_are_called_alike_for_any_number_of_ranks_and_tell_the_same(
    engine: Engine, tmp_path: Path, size: int
) -> None:
    several = shared(engine)

    def entered(ranks: int) -> list[Any]:
        limits = {"maxTrials": 4}
        made = [searching(several, tmp_path, strategy=NarrowingTuneStrategy, limits=limits) for _ in range(ranks)]

        def search(comm: Communicator) -> Any:
            made[comm.rank].comm = comm
            return traversed(made[comm.rank], comm.rank)

        end, *others = on_ranks(ranks, search)
        assert isinstance(end, Finished), end
        assert others == [None] * (ranks - 1)
        return made

    (alone,), made = entered(1), entered(size)
    further = [[] if size == 1 else ["distributed_traverse", (rank, size)] for rank in range(size)]
    assert [strategy.entered for strategy in made] == [["traverse", *more] for more in further]
    assert essence(history_of(made[0]).trials) == essence(history_of(alone).trials)
    assert all("Conv2d fp32" in trial.label for trial in history_of(alone).tried)


@pytest.mark.parametrize("by_hand", [False, True], ids=["traverse", "handles"])
def test_ranks_may_search_again(engine: Engine, tmp_path: Path, *, by_hand: bool) -> None:
    several = shared(engine)

    def twice(comm: Communicator) -> Any:
        strategy = searching(several, tmp_path, strategy=LadderTuneStrategy)
        strategy.comm = comm
        for _ in range(2):
            strategy.recorder = MemoryRecorder(History())
            if by_hand:
                (strategy.slave_worker_handle if comm.rank else strategy.master_worker_handle)(comm.mpi)
            else:
                strategy.traverse()
        return [trial.index for trial in history_of(strategy).trials]

    assert on_ranks(2, twice) == [[0, 1, 2, 3, 4, 5], []]


def test_the_handles_of_strategies_just_made_set_up_first(engine: Engine, tmp_path: Path) -> None:
    """Each on an engine of its own that is not calibrated."""
    made = [OneAtATime(engine.task, engine.quantization, engine.objectives) for _ in range(2)]

    def take(comm: Communicator) -> Any:
        strategy = searching(made[comm.rank], tmp_path, strategy=LadderTuneStrategy)
        return strategy.slave_worker_handle(comm) if comm.rank else strategy.master_worker_handle(comm)

    end, served = on_ranks(2, take)
    assert isinstance(end, Finished), end
    assert served == 5


class HookedTuneStrategy(LadderTuneStrategy):
    """Does something around its search."""

    def traverse(self) -> Finished | None:
        self.around = [self.trials_count]
        finished = super().traverse()
        self.around.append(self.trials_count)
        return finished


def test_traverse_may_be_wrapped_and_saves_the_best_model(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=HookedTuneStrategy)
    finished = ended(strategy)
    assert isinstance(strategy, HookedTuneStrategy)
    assert strategy.around == [0, 5]
    assert finished.artifact == str(strategy.folder)
    assert any(strategy.folder.iterdir())


# --- beginning and end


def test_setup_resume_repeats_no_trial(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    first = searching(engine, tmp_path, strategy=LadderTuneStrategy, limits={"maxTrials": 3})
    ended(first)
    judge.calls = 0
    strategy = searching(engine, tmp_path, strategy=LadderTuneStrategy)
    strategy.setup_resume({"history": history_of(first)})
    assert ended(strategy).outcome is Outcome.EXHAUSTED
    assert (strategy.trials_count, judge.calls) == (5, 2 + 1)


def test_setup_resume_without_a_history_begins_anew(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    strategy.setup_resume(None)
    assert strategy.tuning_history == []


@pytest.mark.parametrize("met", [True, False])
def test_deploy_config_says_what_a_deployment_needs(tmp_path: Path, met: bool) -> None:
    conf = PostTrainingQuantConfig(domain="nlp", quant_level=1)
    conf.tuning_criterion.max_trials = 1
    judge = closeness if met else lambda model: 0.5 if is_quantized(model) else 1.0
    strategy = BasicTuneStrategy(seeded(Net), conf, [images()], eval_func=judge)
    strategy.folder = tmp_path / "workspace" / "model"
    ended(strategy)
    path = strategy.deploy_config()
    assert path == tmp_path / "workspace" / "deploy.yaml"
    said = yaml.safe_load(path.read_text())
    winner = said.pop("tuning")
    assert said == {
        "model": {"inputs": [], "outputs": [], "backend": "default", "quant_format": "default", "domain": "nlp"},
        "device": "cpu",
        "approach": "static",
    }
    assert (TuneConfig.from_plain(winner) if winner else None) == strategy.winner_config
    assert (winner is not None) is met


def test_deploy_config_may_be_written_before_the_search(engine: Engine, tmp_path: Path) -> None:
    path = searching(engine, tmp_path / "new").deploy_config()
    assert yaml.safe_load(path.read_text())["tuning"] is None
