"""What a user can change in a model that torch.export cannot capture, by what torch says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """For errors whose `Type: text` holds the pattern."""

    pattern: str
    advice: str


# The first that fits is taken. Torch's own words, of the one minor version that is pinned.
REMEDIES = (
    Remedy(
        r"GuardOnDataDependentSymNode: Could not guard on",
        "the line decides by a tensor's value which way to go, and a captured model has one way only; compute both and "
        "choose with torch.where(condition, a, b), or decide before the model is called",
    ),
    Remedy(
        r"GuardOnDataDependentSymNode: Could not extract",
        "the line makes a Python number of a tensor's value (.item(), int(), a size or an index), which is another one "
        "for each input; keep it a tensor, or make it an argument of the model's constructor",
    ),
    Remedy(
        r"\.numpy\(\) is not supported",
        "the line leaves torch for NumPy, where nothing can be captured; use torch's function of the same name",
    ),
    Remedy(
        r"argument 'size' failed to unpack .* FakeTensor",
        "the line makes a size of a tensor's value (as packing sequences by their lengths does); give padded tensors, "
        "and mask what is behind a sequence's end",
    ),
    Remedy(
        r"Unsupported input type",
        "inputs are tensors and numbers, and tuples, lists and dicts of them; convert arrays with torch.as_tensor, and "
        "take what an object holds as inputs of its own",
    ),
    Remedy(
        r"must be Tensor, not (dict|\w*Encoding)\b|^AttributeError: '(dict|\w*Encoding)' object",
        "a batch that is a dict is one input of forward(), the first; wrap the model in one that takes it (def "
        "forward(self, batch): return self.model(**batch)), or give tensors in their order: ((input, input, …), label)",
    ),
    Remedy(
        r"in output, which is not a known type",
        "forward() may return tensors, and tuples, lists and dicts of them; return what the object holds as a dict",
    ),
    Remedy(
        r"AssertionError: Guard failed: ",
        "the model was captured for inputs of which this holds, since forward() computes with the size as a number; "
        "take sizes from x.shape there, or give batches of one shape: pad them, drop the last (drop_last=True); the "
        "first dimension counts samples, also of calibration data",
    ),
)


def remedy(said: str) -> str:
    """What to change, of an error that says `Type: text`; empty where it is not known."""
    return next((one.advice for one in REMEDIES if re.search(one.pattern, said)), "")
