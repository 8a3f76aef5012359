"""A strategy's trials on many ranks: what the protocol of `quantuner.distributed` is given."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from quantuner.distributed.communicator import Communicator
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Limits, Work
from quantuner.distributed.slave import Slave
from quantuner.distributed.watchdog import Alarm

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


def work(strategy: TuneStrategy) -> Work:
    """What a rank does with a configuration."""
    return Work(strategy.evaluate)


def master(strategy: TuneStrategy, comm: Communicator) -> Master:
    """Rank 0's executor. Where the resource says so, its own processor evaluates too."""
    todo = work(strategy)
    if strategy.tuning.run_launcher_as_worker:
        own = WithOwnSlave(comm, todo)
        strategy.engine.between_batches = own.slave.check
        comm = own
    known = tuple(trial.seconds for trial in strategy.recorder.history.trials)
    return Master(comm, todo, Limits(known=known), strategy.losses, strategy.observer)


def slave(strategy: TuneStrategy, comm: Communicator) -> int:
    """Another rank's loop, until the master ends it; returns how many trials it evaluated."""
    in_main = threading.current_thread() is threading.main_thread()  # signals, and so the watchdog, are its own
    loop = Slave(comm, work(strategy), Alarm() if in_main else None)
    strategy.engine.between_batches = loop.check
    try:
        return loop.run()
    finally:
        strategy.engine.between_batches = None
