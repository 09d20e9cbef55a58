"""OpenAI's module `model`, for programs that import it by this name; what it does is in gpt2/openai/model.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # for `from src import model` where nothing is installed

from gpt2.openai import tf1

tf1.start()

from gpt2.openai.model import HParams, default_hparams, model, past_shape  # noqa: F401
