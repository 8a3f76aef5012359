"""Weights of 8 or 4 bits in groups, activations left in fp32: rounding, GPTQ, AWQ and HQQ."""
