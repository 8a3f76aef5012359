"""python -m tests.cluster up | down | status"""

import argparse
import sys

from tests.cluster.cluster import ensure_images, ensure_up, narrate, take_down
from tests.cluster.errors import ClusterError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="The test cluster.")
    parser.add_argument("command", choices=["up", "down", "images", "status"])
    command = parser.parse_args().command
    try:
        if command == "up":
            sys.stdout.write(f"{ensure_up().kubeconfig}\n")
        elif command == "images":
            built = ensure_images()
            sys.stdout.write(f"{built.operator}\n{built.tuner}\n")
        elif command == "down":
            take_down()
    except ClusterError as error:
        narrate(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
