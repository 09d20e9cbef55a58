"""Files <-> hparams, named NumPy arrays and vocabularies. No TensorFlow."""
