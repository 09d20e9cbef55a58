"""Evaluation of models: log-probabilities and perplexity of texts, and the tasks of the GPT-2 paper."""
