"""Characters: what a vocabulary is, stop strings, bytes that are not in the encoding. No TensorFlow."""
