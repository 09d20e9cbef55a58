"""Models in the layout that OpenAI published: TensorFlow checkpoints."""
