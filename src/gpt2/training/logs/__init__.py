"""The log and the reports of a training run: history, TensorBoard events, progress lines."""
