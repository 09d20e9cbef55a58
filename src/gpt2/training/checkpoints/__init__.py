"""The folder of a training run: its checkpoints, its progress and its lock."""
