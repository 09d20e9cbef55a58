"""GPT-2 on TensorFlow 2.

>>> from gpt2.generate import generate, load
>>> from gpt2.request import Request
>>> model = load("124M")
>>> for text in generate(model, [Request("Hello, my name is", length=20, seed=1)]):
...     print(text)

One module, one thing; `model.py` is the whole transformer. hparams, model_dir, encoder, request and cli do not import
TensorFlow.
"""
