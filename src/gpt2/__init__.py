"""GPT-2 on TensorFlow 2.

>>> from gpt2.generate import generate, load
>>> from gpt2.request import Request
>>> model = load("124M")
>>> for text in generate(model, [Request("Hello, my name is", length=20, seed=1)]):
...     print(text)

Read the modules in this order: `hparams`, `encoder`, `model` (the whole transformer), `sample`, `generate`. The
packages around them: `text`, `formats`, `engine`, `data`, `training`, `evaluation`, `export`, `server`, `bulk`,
`openai`, and `cli` with `commands`. Only modules that compute with TensorFlow import it.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the message is for those who start the wrong Python
    from gpt2.installation import explain_old_python

    raise SystemExit(explain_old_python())

from gpt2.package_conflict import warn_of_conflict

warn_of_conflict()
