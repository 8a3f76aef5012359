"""Turns a configuration into a quantized PyTorch model. The only room with torch in it."""
