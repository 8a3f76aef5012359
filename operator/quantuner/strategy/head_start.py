"""What rank 0 has ready when it meets the others, who load meanwhile: the ranges, and the fp32 baseline.

Nothing of it is recorded here: a record begins when the ranks were compared.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantuner.api.timeline import Kind
from quantuner.api.trial import TrialResult
from quantuner.distributed.timeline import observed
from quantuner.engine.calibrate import Calibration

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


class HeadStart:
    """Of one search. Each step is taken once, whoever asks for it."""

    def __init__(self, strategy: TuneStrategy) -> None:
        self._strategy = strategy
        self._calibration: Calibration | None = None
        self._baseline: TrialResult | None = None
        self.seconds = 0.0
        """What measuring the baseline took: it is part of the time of searching."""

    def calibrate(self) -> Calibration:
        """Gives the engine its ranges, and returns them. Raises what `Engine.calibrate` raises."""
        if self._calibration is None:
            with observed(self._strategy.observer, Kind.SETUP):
                self._calibration = self._strategy.engine.calibrate()
        return self._calibration

    def measure(self) -> None:
        """Measures the baseline where the record has none. Raises what `Engine.baseline` raises."""
        if self._baseline is not None or self._strategy.recorder.history.baseline is not None:
            return
        began = time.monotonic()
        with observed(self._strategy.observer, Kind.BASELINE):
            self._baseline = self._strategy.engine.baseline()
        self.seconds = time.monotonic() - began

    def baseline(self) -> TrialResult:
        """What was measured ahead, or is measured now."""
        if self._baseline is None:
            with observed(self._strategy.observer, Kind.BASELINE):
                self._baseline = self._strategy.engine.baseline()
        return self._baseline
