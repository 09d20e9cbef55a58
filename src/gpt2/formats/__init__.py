"""Readers of model files: hyperparameters, named NumPy arrays and vocabularies. Nothing here needs TensorFlow."""
