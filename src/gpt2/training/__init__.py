"""Training: the optimizer step, and a run's checkpoints, logs and settings."""
