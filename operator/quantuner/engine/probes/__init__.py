"""What quantization does to a model, estimated on calibration data without a trial."""
