"""A rank's program for the peer's side: Neural Compressor 2.6's own handlers over trials that do nothing.

What they call besides each other (quantizing, evaluating, comparing) is taken away: the protocol alone is timed.
"""

import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

from mpi4py import MPI
from neural_compressor.strategy.strategy import TuneStrategy


class Nothing(TuneStrategy):  # type: ignore[misc]
    """Trials without cost, none of which meets the target."""

    def __init__(self, count: int) -> None:
        self.tune_cfg_lst = [{"op": {}, "index": index} for index in range(count)]
        self.objectives = SimpleNamespace(val=None)
        self.config = SimpleNamespace(tuning_criterion=SimpleNamespace(timeout=0, max_trials=sys.maxsize))
        self.overall_trials = 0
        self.overall_time_start = time.time()
        self.met_flag = self.max_trial_flag = self.max_time_flag = False
        self._adaptor = SimpleNamespace(quantize=lambda *_: True, pre_optimized_model=True)
        self._algo_scheduler = _Scheduler()
        self.model, self.calib_dataloader, self.q_func = True, None, None
        self.best_tune_result = self.best_tuning_cfg = None

    trials_count: Any = 0

    def stop(self, *_: Any) -> bool:
        return False

    def update_best_op_tuning_cfg(self, _: Any) -> tuple[float, None]:
        return 0.5, None

    def meet_acc_req(self, _: Any) -> bool:
        return False

    def set_param_for_pre_quantization_algos(self, *_: Any) -> None:
        """Nothing is set."""

    def set_param_for_post_quantization_algos(self, *_: Any) -> None:
        """Nothing is set."""

    def _evaluate(self, _: Any) -> tuple[float, list[float]]:
        return 0.5, [0.0]


class _Scheduler:
    def __call__(self, _: str) -> bool:
        return True

    def reset_exec_algorithms(self) -> None:
        """None was scheduled."""


def main(count: int) -> None:
    logging.disable(logging.CRITICAL)
    comm = MPI.COMM_WORLD
    strategy = Nothing(count)
    comm.Barrier()
    started = time.monotonic()
    if comm.Get_rank():
        strategy.slave_worker_handle(comm)
        return
    strategy.master_worker_handle(comm)
    wall = time.monotonic() - started
    assert strategy.num_acks == count
    sys.stdout.write(f"{wall}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
