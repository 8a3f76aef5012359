"""A strategy's trials on many ranks: what the protocol of `quantuner.distributed` is given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantuner.api.trial import Limit, TrialResult
from quantuner.distributed.communicator import Communicator, Messages
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Limits, Work
from quantuner.distributed.slave import Slave
from quantuner.distributed.watchdog import Alarm
from quantuner.engine.shares import TrialShare
from quantuner.space.config import TuneConfig

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


def work(strategy: TuneStrategy) -> Work:
    """What a rank does with a configuration, and how ranks share it where the engine can divide it."""
    engine = strategy.engine
    if strategy.evaluates_itself:
        return Work(strategy.evaluate)

    def shares(payload: Any) -> int:
        return engine.shares(TuneConfig.from_plain(payload))

    def part(payload: Any, part: int, parts: int) -> TrialShare:
        return engine.trial_part(TuneConfig.from_plain(payload), part, parts)

    def combine(payload: Any, shares: Sequence[TrialShare]) -> TrialResult:
        limit = Limit.from_plain(payload["limit"]) if "limit" in payload else None
        return engine.trial_of_parts(TuneConfig.from_plain(payload), shares, limit)

    return Work(strategy.evaluate, shares, part, combine)


def master(strategy: TuneStrategy, comm: Communicator) -> Master:
    """Rank 0's executor. Where the resource says so, its own processor evaluates too."""
    todo = work(strategy)
    messages: Messages = comm
    if strategy.tuning.run_launcher_as_worker:
        messages = own = WithOwnSlave(comm, todo)
        strategy.engine.between_batches = own.slave.check

    def known() -> list[float]:
        """Seconds of what was told, the baseline's among them, which is measured after the executor is made."""
        return [trial.seconds for trial in strategy.recorder.history.trials]

    return Master(messages, todo, Limits(), strategy.losses, strategy.observer, known, strategy.answered)


def slave(strategy: TuneStrategy, comm: Communicator) -> int:
    """Another rank's loop, until the master ends it; returns how many trials it evaluated."""
    in_main = threading.current_thread() is threading.main_thread()  # signals, and so the watchdog, are its own
    loop = Slave(comm, work(strategy), Alarm() if in_main else None)
    strategy.engine.between_batches = loop.check
    try:
        return loop.run()
    finally:
        strategy.engine.between_batches = None
