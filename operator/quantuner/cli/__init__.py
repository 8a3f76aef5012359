"""The command line: run, report, validate, version."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from yaml.composer import ComposerError

from quantuner import __version__
from quantuner.api.bounds import DEPTH_LIMIT
from quantuner.api.errors import InvalidResourceError, QuantunerError
from quantuner.api.validation import admit
from quantuner.cli.local import run
from quantuner.cli.report import TUNING_FILE, show

EXIT_USAGE = 2
EXIT_CODES = (
    "exit codes: 0 the search is complete, whether or not its target is met (status.yaml in the workspace says that: "
    "condition TargetMet); 1 it failed or was interrupted; 2 the command, the resource or a file is wrong"
)
PLAIN_WIDTH = 120  # characters of a table in a file or a CI log


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="quantuner", description="Finds the int8 configuration that keeps the accuracy."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    about = "search on this computer, as the cluster would"
    run = commands.add_parser("run", help=about, description=about, epilog=EXIT_CODES)
    run.add_argument("file", type=Path, help="a QuantizationTuning as YAML")
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="workers, of spec.slotsPerWorker ranks each, beside the master; 0 is serial; default: spec.workers",
    )
    run.add_argument("--code", type=Path, help="folder with the task's modules; default: the file's folder")
    run.add_argument(
        "--workspace",
        type=Path,
        help="folder for journal, model and status; default: quantuner_workspace/NAME",
    )
    run.add_argument(
        "--fresh", action="store_true", help="search anew even where this search has finished or could go on"
    )
    run.add_argument("--verbose", action="store_true", help="show the ranks' own output")

    report = commands.add_parser("report", help="show a search, finished or not, from its workspace")
    report.add_argument("workspace", type=Path)
    report.add_argument("--trace", type=Path, metavar="FILE", help="write the timeline as a Chrome trace, for Perfetto")
    report.add_argument("--svg", type=Path, metavar="FILE", help="write the timeline as a picture")

    validate = commands.add_parser("validate", help="check a resource as the API server would")
    validate.add_argument("file", type=Path)

    commands.add_parser("version", help="print the version")
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: the search failed or was stopped; 2: the command, the resource or a file is wrong."""
    args = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale that has no ≤ is no reason to fail
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    try:
        return _dispatch(args, console)
    except InvalidResourceError as error:
        # A workspace keeps its resource as the Quantuner of that time let it in.
        file = args.workspace / TUNING_FILE if args.command == "report" else args.file
        for problem in error.problems:
            Console(stderr=True, highlight=False).print(
                f"[red]error[/red] {escape(f'{file}: {problem}')}", soft_wrap=True
            )
        return EXIT_USAGE
    except (QuantunerError, OSError, yaml.YAMLError) as error:
        Console(stderr=True, highlight=False).print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
        return EXIT_USAGE


def _dispatch(args: argparse.Namespace, console: Console) -> int:
    if args.command == "version":
        console.print(__version__)
        return 0
    if args.command == "validate":
        body = admit(read_manifest(args.file))
        console.print(f"{args.file}: valid", markup=False, soft_wrap=True)
        console.print(yaml.safe_dump(body, sort_keys=False), end="", markup=False, soft_wrap=True)
        return 0
    if args.command == "report":
        return show(args.workspace, console, trace=args.trace, svg=args.svg)
    return run(args, read_manifest(args.file), console)


def read_manifest(path: Path) -> object:
    """The one document of a YAML file. Raises `QuantunerError` where there is not exactly one, or it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:  # not its text alone: what is wrong is told with the file's name
            documents = [d for d in yaml.load_all(file, _Loader) if d is not None]
    except UnicodeDecodeError as error:
        raise QuantunerError(f"{path} is no UTF-8 ({error}); save it in that encoding") from error
    except RecursionError as error:
        raise QuantunerError(
            f"{path} holds objects and lists too deep in each other to be read; nest at most {DEPTH_LIMIT}"
        ) from error
    if len(documents) != 1:
        raise QuantunerError(f"{path} holds {len(documents)} documents; give a file with one QuantizationTuning")
    return documents[0]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as kubectl does: its last value would win in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        known: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in known:
                problem = f"the key {key.value!r} stands twice in one mapping; keep one of them"
                raise ComposerError("in a mapping", node.start_mark, problem, key.start_mark)
            known.add((key.tag, key.value))
        return node
