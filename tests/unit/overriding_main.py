"""A rank whose strategy overrides all there is, and raises where it is told to: one `fit` after the other."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantuner import options, run
from quantuner.api.errors import SearchError
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
from quantuner.engine import fresh
from quantuner.quantization import fit
from quantuner.strategy import BasicTuneStrategy, strategy_registry
from tests.unit import fresh_forks
from tests.unit.strategy.contract_task import task

NOWHERE = "nowhere"
IDLE = "handle 1 idle"
FP32_CONV = PostTrainingQuantConfig(op_type_dict={"Conv2d": {"weight": {"dtype": ["fp32"]}}})
RANK = "OMPI_COMM_WORLD_RANK"

prepare_to_fork = run.prepare_to_fork


class OverridingTuneStrategy(BasicTuneStrategy):
    """Says what was called, and with which communicator."""

    place = NOWHERE
    called: list[str]
    spelled: list[Any]

    def traverse(self) -> Any:
        type(self).called, type(self).spelled = [], []
        self.set_tuning_space(FP32_CONV)
        return self._around("traverse", super().traverse)

    def distributed_traverse(self) -> Any:
        return self._around("distributed_traverse", super().distributed_traverse)

    def master_worker_handle(self, comm: Any) -> Any:
        return self._around("handle", lambda: super(OverridingTuneStrategy, self).master_worker_handle(comm), comm)

    def slave_worker_handle(self, comm: Any) -> Any:
        if self.place == IDLE and comm.Get_rank() == 1:
            return 0
        return self._around("handle", lambda: super(OverridingTuneStrategy, self).slave_worker_handle(comm), comm)

    def _around(self, member: str, inner: Callable[[], Any], comm: Any = None) -> Any:
        self.called.append(member)
        if comm is not None and self.place == NOWHERE:
            self.spelled.extend([comm.Get_rank(), comm.Get_size(), comm.bcast(os.environ[RANK]), comm.allreduce(1)])
            comm.Barrier()
        self._fail(member, "before")
        found = inner()
        self._fail(member, "after")
        return found

    def _fail(self, member: str, when: str) -> None:
        if self.place == f"{member} {os.environ.get(RANK, '0')} {when}":
            raise ValueError(f"raised in {self.place}")


def conf(strategy: str) -> PostTrainingQuantConfig:
    criterion = TuningCriterion(strategy, max_trials=2)
    return PostTrainingQuantConfig(tuning_criterion=criterion, accuracy_criterion=AccuracyCriterion(tolerable_loss=0))


def fitted(place: str, workspace: Path) -> str:
    """What `fit` said where a rank raises at that place."""
    OverridingTuneStrategy.place, data = place, task()
    options.set_workspace(workspace)
    try:
        return str(fit(data.model, conf("overriding"), data.calib_dataloader, eval_func=data.eval_func))
    except SearchError as error:
        return error.message
    finally:
        options.set_workspace(None)


def by_hand(folder: Path) -> list[Any]:
    """What a strategy that was just made has done by its handles: trials served, and told."""
    from mpi4py import MPI

    data = task()
    strategy = BasicTuneStrategy(data.model, conf("basic"), data.calib_dataloader, eval_func=data.eval_func)
    strategy.folder = folder
    comm = MPI.COMM_WORLD
    (strategy.slave_worker_handle if comm.Get_rank() else strategy.master_worker_handle)(comm)
    return [strategy.served, [trial.index for trial in strategy.tuning_history]]


def main() -> int:
    """Arguments: a folder, and the places where somebody raises."""
    fresh.begin = fresh_forks.begin
    strategy_registry(OverridingTuneStrategy)
    folder, places = Path(sys.argv[1]), sys.argv[2:]
    said: dict[str, Any] = {place: fitted(place, folder / str(at)) for at, place in enumerate(places)}
    said[NOWHERE] = fitted(NOWHERE, folder / NOWHERE)
    said |= {"called": OverridingTuneStrategy.called, "spelled": OverridingTuneStrategy.spelled}
    said["by hand"] = by_hand(folder / "by hand")
    (folder / f"{os.environ[RANK]}.json").write_text(json.dumps(said))
    return 0
