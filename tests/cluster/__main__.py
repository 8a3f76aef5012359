"""The command line: python -m tests.cluster up | images | status | down, from the repository's root."""

import argparse
import sys

from tests.cluster.cluster import describe, ensure_images, ensure_up, narrate, take_down
from tests.cluster.errors import ClusterError

COMMANDS = {
    "up": "have the cluster running, and print its kubeconfig's path",
    "images": "have it running with both images of the present sources in it, and print their names",
    "status": "say what runs",
    "down": "remove every trace of it but the cache",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="The test cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose)
    try:
        lines = _perform(parser.parse_args().command)
    except ClusterError as error:
        narrate(str(error))
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _perform(command: str) -> list[str]:
    if command == "up":
        return [str(ensure_up().kubeconfig)]
    if command == "images":
        images = ensure_images()
        return [images.operator, images.tuner]
    if command == "status":
        return describe()
    take_down()
    return []


if __name__ == "__main__":
    sys.exit(main())
