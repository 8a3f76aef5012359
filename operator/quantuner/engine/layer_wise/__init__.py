"""Models that are larger than memory: quantized layer by layer from the checkpoint that holds their weights."""
