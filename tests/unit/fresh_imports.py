"""What a fresh process imports, for `fresh_forks`; forks neither look through it for garbage nor copy it."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()

from quantuner.engine import serving  # noqa: E402

serving._prepare()
gc.freeze()
