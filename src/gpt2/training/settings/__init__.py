"""The settings of a training run, and their combination with a resumed run's own."""
