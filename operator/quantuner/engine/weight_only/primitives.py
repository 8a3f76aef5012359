"""The parts of torchao's affine and half-quadratic quantization that weights in few bits stand on."""

from quantuner.engine.quiet import quiet

with quiet():
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        quantize_affine,
    )
    from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_affine_hqq as hqq_affine
    from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_scale_only_hqq as hqq_symmetric

__all__ = ["MappingType", "choose_qparams_affine", "hqq_affine", "hqq_symmetric", "quantize_affine"]
