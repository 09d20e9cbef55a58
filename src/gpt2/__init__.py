"""GPT-2 on TensorFlow 2.

>>> from gpt2.generate import generate, load
>>> from gpt2.request import Request
>>> model = load("124M")
>>> for text in generate(model, [Request("Hello, my name is", length=20, seed=1)]):
...     print(text)

The story, in reading order: `hparams`, `encoder`, `model` (the whole transformer), `sample`, `generate`. Around it are
rooms: `text`, `formats`, `engine`, `openai`, `data`, `training`, `cli`. TensorFlow is imported where it computes, not
before.
"""
