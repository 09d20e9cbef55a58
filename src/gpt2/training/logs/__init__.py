"""What a training run records and reports: history, TensorBoard events, progress lines."""
