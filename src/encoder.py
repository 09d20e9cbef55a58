"""OpenAI's module `encoder`, for programs that import it by this name; gpt2/openai/encoder.py implements it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # for `from src import encoder` without an installation

from gpt2.openai import tf1
from gpt2.openai.encoder import Encoder, bytes_to_unicode, get_encoder  # noqa: F401

tf1.install_v1_names()
