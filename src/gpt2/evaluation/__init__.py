"""How good a model is: what it thinks of a text, token by token, and the tasks of the paper that introduced GPT-2."""
