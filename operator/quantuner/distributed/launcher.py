"""First process of the launcher pod: restores the journal, supervises mpirun, mirrors the journal to the cluster."""

import argparse
import logging
import sys
import threading
from pathlib import Path

import yaml

from quantuner.distributed import mpirun
from quantuner.distributed.configmap import ConfigMaps
from quantuner.distributed.mirror import Mirror
from quantuner.distributed.supervisor import Launch, Supervisor


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.distributed.launcher", description=__doc__)
    parser.add_argument("--tuning", type=Path, required=True, help="the resource, as YAML")
    parser.add_argument("--code", type=Path, help="folder with the task's modules")
    parser.add_argument("--workspace", type=Path, required=True, help="folder for journal and model")
    parser.add_argument("--output", type=Path, help="folder for the winning model; default: in the workspace")
    parser.add_argument("--journal", required=True, help="ConfigMap of the journal")
    parser.add_argument("--result", required=True, help="ConfigMap of the best configuration")
    parser.add_argument("--hostfile", type=Path, required=True, help="hosts, this one first")
    return parser


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s launcher %(levelname)s %(message)s", stream=sys.stderr)
    args = arguments().parse_args(argv)
    mirror = Mirror(args.workspace, ConfigMaps(), args.journal, args.result)
    mirror.restore()
    mirror.start()
    try:
        return Supervisor(args.workspace, lambda stop: _launch(args, stop)).run()
    finally:
        mirror.finish()


def _launch(args: argparse.Namespace, stop: threading.Event) -> Launch:
    program = mpirun.python("-m", "quantuner.run", "--tuning", str(args.tuning), "--workspace", str(args.workspace))
    program.append("--in-pod")
    for name in ("code", "output"):
        if getattr(args, name) is not None:
            program += [f"--{name}", str(getattr(args, name))]
    hosts = mpirun.answering(mpirun.read_hostfile(args.hostfile), stop)
    return mpirun.on_hosts(hosts, args.workspace / "hostfile", program, _template_variables(args.tuning))


def _template_variables(tuning: Path) -> list[str]:
    """Names of the user's variables, which this pod has like every other."""
    template = yaml.safe_load(tuning.read_text(encoding="utf-8"))["spec"].get("template") or {}
    return [variable["name"] for variable in template.get("env", ())]


if __name__ == "__main__":
    sys.exit(main())
