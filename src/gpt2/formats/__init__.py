"""Readers of model files: hyperparameters, named NumPy arrays and vocabularies. They do not need TensorFlow."""
