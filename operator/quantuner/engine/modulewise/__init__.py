"""Models that cannot be captured, because their control flow depends on data: quantized module by module, in place."""
