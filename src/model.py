"""OpenAI's module `model`, for programs that import it by this name; gpt2/openai/model.py implements it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # for `from src import model` without an installation

from gpt2.openai import tf1

tf1.import_tensorflow()

from gpt2.openai.model import HParams, default_hparams, model, past_shape  # noqa: F401
