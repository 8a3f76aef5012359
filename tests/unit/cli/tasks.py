"""A tuning that a laptop searches in seconds: two linears, whose target only the fp32 model meets."""

from pathlib import Path
from typing import Any

import yaml

from tests.unit.records import manifest

TASK = """
import torch
from torch import nn
from quantuner import Task

def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    data = torch.randn(32, 4)
    with torch.no_grad():
        expected = model(data)

    def closeness(candidate):
        return 1 - float((candidate(data) - expected).abs().mean())

    return Task(model=model, calib_dataloader=[data], eval_func=closeness)

def broken():
    values = []
    return values["[/tmp]"]  # markup of rich, in the text of an error
"""
BROKEN_LINE = 1 + next(i for i, line in enumerate(TASK.splitlines()) if "[/tmp]" in line)
TRIALS = 7  # 4 by type, 2 alone, 1 accumulated: the last meets the target


def written(folder: Path, entrypoint: str = "tiny:task", **spec: Any) -> Path:
    """The task and its resource in `folder`; the path of the resource."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.py").write_text(TASK)
    body = manifest(
        {
            "task": {"entrypoint": entrypoint},
            "accuracyCriterion": {"criterion": "absolute", "tolerableLoss": 1e-6},
            # Both linears are first and last: were the recipes tried, the second trial would meet the target.
            "quantization": {"recipes": {"firstConvOrMatmulQuantization": True, "lastConvOrMatmulQuantization": True}},
            "tuningCriterion": {"strategy": "basic", "objectives": [{"name": "performance"}, {"name": "modelsize"}]},
            "workers": 1,
            **spec,
        },
        name="tiny",
    )
    (folder / "tuning.yaml").write_text(yaml.safe_dump(body))
    return folder / "tuning.yaml"
