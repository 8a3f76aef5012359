"""The model card: what a saved model is and how it was found, for who opens its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

_TEXT = """# A quantized model

Found by Quantuner: trial {trial} of {trials}, which {verdict} the accuracy criterion.

| | fp32 | this model |
| --- | --- | --- |
| accuracy | {baseline!r} | {accuracy!r} |
| parameters and buffers, MiB | {baseline_size:.3f} | {size:.3f} |
| modelled latency of the quantizable ops | 1 | {cost:.3f} |

Ops: {ops}. Every op is in config.yaml, every figure in report.json.

{loading}"""
_PROGRAM = """```python
import quantuner

model = quantuner.load("FOLDER")  # checks SHA256SUMS first
fast = quantuner.load("FOLDER", compile=True)  # in int8 kernels of this CPU; compiles at its first call
```

`model.pt2` is a program of torch.export and loads with torch alone, made with {versions}:

```python
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators that round to int8

model = torch.export.load("FOLDER/model.pt2").module()
```
"""
_WEIGHTS = """The model could not be captured as a program. `weights.pt` holds its tensors, made with {versions}.
Your own fp32 module takes them:

```python
import quantuner

model = quantuner.load("FOLDER", model=MyModel())  # checks SHA256SUMS first
```
"""


def card(report: Mapping[str, Any], config: Mapping[str, Any], *, captured: bool = True) -> str:
    """Markdown. `report` is that of report.json, `config` that of config.yaml; `captured`: it is a program."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    modes = Counter(op["mode"] for op in config["ops"].values())
    return _TEXT.format(
        trial=report["trial"],
        trials=report["trials"],
        verdict="meets" if report["meets"] else "comes nearest to",
        baseline=report["baseline"],
        accuracy=report["accuracy"],
        baseline_size=report["sizes"]["fp32"],
        size=report["sizes"]["model"],
        cost=report["cost"],
        ops=", ".join(f"{count} {mode}" for mode, count in modes.most_common()),
        loading=(_PROGRAM if captured else _WEIGHTS).format(versions=versions),
    )
