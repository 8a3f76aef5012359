"""First process of the launcher pod: restores the journal, supervises mpirun, mirrors the journal to the cluster."""

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quantuner.distributed import forking, mpirun
from quantuner.distributed.configmap import SERVICE_ACCOUNT, ConfigMaps
from quantuner.distributed.held import SupersededError
from quantuner.distributed.hosts import Host, read_hostfile
from quantuner.distributed.mirror import Mirror
from quantuner.distributed.processes import Launch
from quantuner.distributed.starts import Limits, Starts
from quantuner.distributed.supervisor import TERMINATED, Supervisor

logger = logging.getLogger(__name__)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.distributed.launcher", description=__doc__)
    parser.add_argument("--tuning", type=Path, required=True, help="the resource, as YAML")
    parser.add_argument("--code", type=Path, help="folder with the task's modules")
    parser.add_argument("--workspace", type=Path, required=True, help="folder for journal and model")
    parser.add_argument("--output", type=Path, help="folder for the winning model; default: in the workspace")
    parser.add_argument("--journal", required=True, help="ConfigMap of the journal")
    parser.add_argument("--result", required=True, help="ConfigMap of the best configuration")
    parser.add_argument("--hostfile", type=Path, required=True, help="hosts, this one first")
    parser.add_argument("--account", type=Path, default=SERVICE_ACCOUNT, help="folder of the pod's service account")
    return parser


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s launcher %(levelname)s %(message)s", stream=sys.stderr)
    args = arguments().parse_args(argv)
    supervisor = Supervisor(args.workspace, _starts(args))
    # Signals are heeded while the journal is restored and flushed, too; the server imports meanwhile.
    with supervisor.listening(), forking.serving(args.workspace) if _forks() else contextlib.nullcontext():
        mirror = Mirror(args.workspace, ConfigMaps(args.account), args.journal, args.result, supervisor.stop)
        if not mirror.restore(supervisor.terminated):
            return TERMINATED
        mirror.start()
        try:
            return supervisor.run()
        finally:
            with contextlib.suppress(SupersededError):  # the mirror has said so, and stopped the supervisor
                mirror.finish()


def _forks() -> bool:
    return forking.wanted(default=False)


def _starts(args: argparse.Namespace) -> Starts:
    spec = yaml.safe_load(args.tuning.read_text(encoding="utf-8"))["spec"]
    return Starts(
        args.workspace,
        lambda: _with_rank_0(read_hostfile(args.hostfile), spec),
        lambda hosts: _launch(args, spec, hosts),
        _limits(spec.get("tuningCriterion") or {}),
    )


def _launch(args: argparse.Namespace, spec: Mapping[str, Any], hosts: Sequence[Host]) -> Launch:
    hostfile = args.workspace / "hostfile"
    program = forking.client(args.workspace, forking.PROGRAM) if _forks() else mpirun.python("-m", forking.PROGRAM)
    program += ["--tuning", str(args.tuning), "--workspace", str(args.workspace)]
    program += ["--in-pod", "--hostfile", str(hostfile)]
    for name in ("code", "output"):
        if getattr(args, name) is not None:
            program += [f"--{name}", str(getattr(args, name))]
    return mpirun.on_hosts(hosts, hostfile, program, _template_variables(spec))


def _limits(criterion: Mapping[str, Any]) -> Limits:
    return Limits(criterion.get("maxTrials") or math.inf, criterion.get("timeoutSeconds") or math.inf)


def _with_rank_0(hosts: Sequence[Host], spec: Mapping[str, Any]) -> list[Host]:
    """mpi-operator gives this pod as many slots as a worker; rank 0 takes one, unless it works as they do."""
    launcher, *workers = hosts
    return [launcher if spec.get("runLauncherAsWorker") else Host(launcher.name), *workers]


def _template_variables(spec: Mapping[str, Any]) -> list[str]:
    """Names of the user's variables, which this pod has like every other."""
    return [variable["name"] for variable in (spec.get("template") or {}).get("env", ())]


if __name__ == "__main__":
    sys.exit(main())
