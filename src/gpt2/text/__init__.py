"""Text handling without TensorFlow: the vocabulary protocol, stop strings and undecodable bytes."""
