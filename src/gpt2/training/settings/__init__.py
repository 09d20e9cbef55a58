"""The settings of a training run, and how a resumed run combines them with its own."""
