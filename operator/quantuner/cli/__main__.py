"""`python -m quantuner.cli`, where the console script is not on PATH."""

import sys

from quantuner.cli import main

sys.exit(main())
