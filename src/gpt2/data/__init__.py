"""Turns text into files of ids, and ids into the windows that training uses. Does not import TensorFlow."""
