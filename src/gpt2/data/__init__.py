"""Text -> files of ids, and the windows of them that training sees. No TensorFlow."""
