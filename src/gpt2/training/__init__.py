"""Training: one optimiser step, the run's folder, what a person sees of it."""
