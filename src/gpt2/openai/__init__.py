"""OpenAI's modules `encoder`, `model` and `sample` in TensorFlow 1 graphs, for programs that import them."""
