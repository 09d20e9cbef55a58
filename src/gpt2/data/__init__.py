"""Functions that turn text into files of ids, and ids into training windows, without TensorFlow."""
