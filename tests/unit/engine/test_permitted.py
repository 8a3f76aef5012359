"""Saved programs call what models compute with, and nothing that writes outside of its memory or to anything else."""

import pytest
import torch
from torch._ops import OpOverload

from quantuner.engine.permitted import is_permitted


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add.Tensor",
        "torch.ops.aten.relu_.default",
        "torch.ops.aten._softmax.default",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.aten.lstm.input",
        "torch.ops.aten.scaled_dot_product_attention.default",
        "torch.ops.aten.upsample_bilinear2d.vec",
        "torch.ops.aten.special_erfcx.default",
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.aten.sym_size.int",
        "torch.ops.quantized_decomposed.quantize_per_tensor.default",
        "torch.ops.higher_order.cond",
        "_operator.getitem",
        "math.ceil",
        "torch.sym_max",
        "torch._sym_sqrt",
    ],
)
def test_what_models_compute_with_is_permitted(target: str) -> None:
    assert is_permitted(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add",
        "torch.ops.aten.add.op",
        "torch.ops.aten.add.out",
        "torch.ops.aten.add.str",  # of texts, as TorchScript has it
        "torch.ops.aten.add.overloads",
        "torch.ops.aten.name.join",
        "torch.ops.aten._dir.append",
        "torch.ops.aten.absent.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.aten.resize_.default",
        "torch.ops.aten.backward.default",
        "torch.ops.aten.manual_seed.default",
        "torch.ops.aten._set_item.t",
        "torch.ops.aten.requires_grad_.default",
        "torch.ops.aten.warn.default",
        "torch.ops.higher_order.print",
        "torch.ops.higher_order.flex_attention",  # its options become C++
        "torch.ops.torchvision.nms.default",
        "torch.sym_fresh_size",
        "math.factorial",
        "_operator.methodcaller",
    ],
)
def test_what_does_something_else_is_not(target: str) -> None:
    assert not is_permitted(target)


@pytest.mark.parametrize(
    "target",
    [
        "max_pool2d_with_indices_backward.default",
        "max_pool3d_with_indices_backward.default",
        "adaptive_max_pool2d_backward.default",
        "fractional_max_pool2d_backward.default",
        "_sparse_coo_tensor_unsafe.default",
        "_segment_reduce_backward.default",
        "_reshape_alias.default",
        "_weight_norm.default",
        "native_batch_norm.default",
        "repeat_interleave.self_Tensor",
        "_upsample_bilinear2d_aa.default",
        "_ctc_loss.default",
        "linalg_lu_solve.default",
        "_index_put_impl_.default",
    ],
)
def test_what_trusts_its_indices_or_lengths_is_not(target: str) -> None:
    name, overload = target.split(".")
    assert isinstance(getattr(getattr(torch.ops.aten, name), overload), OpOverload)  # torch has it
    assert not is_permitted(f"torch.ops.aten.{target}")
