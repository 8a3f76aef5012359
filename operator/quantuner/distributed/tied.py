"""`python -m quantuner.distributed.tied PARENT MODULE ARGUMENTS`: runs a module that ends with its parent, however that
ends."""

import runpy
import sys

from quantuner.distributed.becoming import die_with


def main() -> None:
    die_with(int(sys.argv[1]))
    module = sys.argv[2]
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
