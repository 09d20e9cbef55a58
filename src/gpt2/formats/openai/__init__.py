"""Reader of models in the layout that OpenAI published: TensorFlow checkpoints."""
