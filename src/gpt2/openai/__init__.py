"""OpenAI's modules `encoder`, `model` and `sample` for programs that were written on them, in TensorFlow 1's graphs."""
