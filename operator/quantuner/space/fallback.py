"""The ops that fallback recipes are about."""

from collections.abc import Sequence

from quantuner.space.capability import Op

WITH_WEIGHTS = ("Conv", "Linear")
"""Beginnings of the types that count as convolution or matmul."""


def recipe_ops(ops: Sequence[Op]) -> dict[str, list[str]]:
    """Fallback recipe to the names of its ops, which are in the order in which the model computes them.

    Pre- and post-processing is a notion of ONNX graphs: a captured PyTorch model has none, so its list is empty.
    """
    names = [op.name for op in ops if op.type.startswith(WITH_WEIGHTS)]
    return {
        "first_conv_or_matmul_quantization": names[:1],
        "last_conv_or_matmul_quantization": names[-1:],
        "pre_post_process_quantization": [],
    }
