"""OpenAI's module `sample`, for programs that import it by this name; gpt2/openai/sample.py implements it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # for `from src import sample` without an installation

from gpt2.openai import tf1

tf1.import_tensorflow()

from gpt2.openai.sample import sample_sequence, top_k_logits, top_p_logits  # noqa: F401
