"""The record that a search begins: what identifies it, and where it is kept."""

from __future__ import annotations

import dataclasses
import logging
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import HOSTS_LIMIT, History, Launched, Record
from quantuner.api.spec import Tuning, digest
from quantuner.api.timestamps import utc_now
from quantuner.distributed.journal import JournalFolder
from quantuner.engine.engine import cpu_kind, libraries, threads_in_use
from quantuner.space.capability import Mode

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Identity:
    """What makes a search this one, besides its model and calibration data."""

    search: str
    """Digest of what is asked for."""
    code: str = ""
    """Digest of the task's own modules; empty where the task came as objects."""
    hosts: tuple[str, ...] = dataclasses.field(default_factory=lambda: (socket.gethostname(),))
    """Host of each rank."""

    @classmethod
    def of(cls, tuning: Tuning) -> Identity:
        """Of a search that no resource file describes."""
        criterion = tuning.tuning_criterion
        parts = (tuning.quantization, tuning.accuracy_criterion, criterion.objectives, criterion.strategy_kwargs)
        whole = [] if criterion.early_abandonment else ["measured to the end"]
        return cls(digest([tuning.strategy, *(_plain(part) for part in parts), *whole]))


def _plain(value: Any) -> Any:
    """Plain data for a digest; a callable, as a user's loss, by its name, the same in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (set, frozenset)):  # whose order is another in every process
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, (str, int, float)):
        return value
    return getattr(value, "__qualname__", re.sub(r" at 0x[0-9a-f]+", "", str(value)))


def launch(strategy: TuneStrategy) -> None:
    """Records that ranks set out. Raises `SearchError` where the record is of another search, with the difference."""
    launched = Launched(
        search=strategy.identity.search,
        model=strategy.engine.digest,
        ops=len(strategy.engine.captured.ops),
        ranks=len(strategy.identity.hosts),
        hosts=strategy.identity.hosts[:HOSTS_LIMIT],
        time=utc_now(),
        code=strategy.identity.code,
        ranges=strategy.engine.ranges_digest,
        versions=", ".join(f"{name} {version}" for name, version in libraries().items()),
        precisions=", ".join(mode.value for mode in strategy.engine.precisions if mode is not Mode.FP32),
        left_out="; ".join(f"{mode.value}: {why}" for mode, why in strategy.engine.left_out.items()),
        selection=strategy.selection,
        threads=threads_in_use(),
        cpu=cpu_kind(),
    )
    if launched.left_out:
        logger.warning("precisions that are left out of the search: %s", launched.left_out)
    try:
        strategy.recorder.append(launched)
    except JournalError as error:
        raise SearchError(Failure.JOURNAL_MISMATCH, str(error)) from error
    strategy.answered.begin(digest(launched.measuring))


def kept_in(folder: Path, known: History) -> JournalFolder:
    """The journal in `folder`; an empty one begins with the trials `known` from elsewhere.

    Raises `JournalError` where the folder holds a search already and there are known trials, or is in use.
    """
    journal = JournalFolder(folder)
    if journal.history.launches and journal.history.trials[: len(known.trials)] != known.trials:
        journal.close()
        raise JournalError(
            f"{journal.journal} holds a search already, and resume names another one; set another workspace"
        )
    if not journal.history.launches:
        records: list[Record] = [*known.launches, *known.trials]
        for record in records:
            journal.append(record)
    return journal
