"""A strategy's trials on many ranks: what the protocol of `quantuner.distributed` is given."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantuner.api.trial import Limit, TrialResult
from quantuner.distributed.communicator import Communicator, Messages
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Known, Work
from quantuner.distributed.slave import Slave
from quantuner.distributed.watchdog import Alarm
from quantuner.engine.shares import TrialShare
from quantuner.space.config import TuneConfig
from quantuner.strategy.evaluating import evaluated

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


OWN_EVALUATE = "own evaluate"


def work(strategy: TuneStrategy) -> Work:
    """What a rank does with a configuration, and how ranks share it where the engine can divide it."""
    engine = strategy.engine
    evaluate = functools.partial(evaluated, strategy)

    def kind(payload: Any) -> str:
        return kind_of(strategy, TuneConfig.from_plain(payload))

    if strategy.evaluates_itself:
        return Work(evaluate, kind=kind)

    def shares(payload: Any) -> int:
        return engine.shares(TuneConfig.from_plain(payload))

    def part(payload: Any, part: int, parts: int) -> TrialShare:
        return engine.trial_part(TuneConfig.from_plain(payload), part, parts)

    def combine(payload: Any, shares: Sequence[TrialShare]) -> TrialResult:
        limit = Limit.from_plain(payload["limit"]) if "limit" in payload else None
        return engine.trial_of_parts(TuneConfig.from_plain(payload), shares, limit)

    return Work(evaluate, shares, part, combine, kind)


def kind_of(strategy: TuneStrategy, config: TuneConfig) -> str:
    """What a trial does, as `Work.kind`. What a strategy's own `evaluate` does beside the engine's nobody knows."""
    return OWN_EVALUATE if strategy.evaluates_itself else strategy.engine.kind(config)


def known(strategy: TuneStrategy) -> Known:
    """What was told took how long: the baseline, and by their kind the trials that ran to their end."""
    trials: dict[str, list[float]] = defaultdict(list)
    state = strategy.state
    for digest, trial in state.told.items():
        if trial.accuracy is not None and not trial.bound:
            trials[kind_of(strategy, state.configs[digest])].append(trial.seconds)
    baseline = strategy.recorder.history.baseline
    return Known(None if baseline is None else baseline.seconds, trials)


def master(strategy: TuneStrategy, comm: Communicator) -> Master:
    """Rank 0's executor. Where the resource says so, its own processor evaluates too."""
    todo = work(strategy)
    messages: Messages = comm
    if strategy.tuning.run_launcher_as_worker:
        messages = own = WithOwnSlave(comm, todo)
        strategy.engine.between_batches = own.slave.check

    before = functools.partial(known, strategy)
    return Master(
        messages,
        todo,
        losses=strategy.losses,
        observer=strategy.observer,
        known=before,
        answered=strategy.answered,
        hosts_answer=strategy.hosts_answer,
    )


def slave(strategy: TuneStrategy, comm: Communicator) -> int:
    """Another rank's loop, until the master ends it; returns how many trials it evaluated."""
    in_main = threading.current_thread() is threading.main_thread()  # signals, and so the watchdog, are its own
    loop = Slave(comm, work(strategy), Alarm() if in_main else None)
    strategy.engine.between_batches = loop.check
    try:
        return loop.run()
    finally:
        strategy.engine.between_batches = None
