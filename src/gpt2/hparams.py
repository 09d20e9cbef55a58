"""The five numbers that define a GPT-2, read from `hparams.json`, and the variables that follow from them.

>>> HParams(n_vocab=50257).n_params
124439808
"""

from __future__ import annotations

import dataclasses
import reprlib
from pathlib import Path

from gpt2 import files
from gpt2.errors import GPT2Error

HPARAMS_FILE = "hparams.json"
LARGEST, MOST_LAYERS = (1 << 31) - 1, 10_000  # ids and sizes have 32 bits; each layer costs time before it is read


@dataclasses.dataclass(frozen=True)
class HParams:
    """Sizes of a GPT-2; the defaults are those of OpenAI's `default_hparams()`, the model called 124M.

    Raises GPT2Error for anything but positive whole numbers that a model can have, and for heads that do not divide the
    embedding.
    """

    n_vocab: int
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise GPT2Error(f"{name} must be a whole number of at least 1, not {reprlib.repr(value)}")
            most = MOST_LAYERS if name == "n_layer" else LARGEST
            if value > most:
                raise GPT2Error(f"{name} must be at most {most}, not {reprlib.repr(value)}")
        if self.n_embd % self.n_head:
            raise GPT2Error(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def n_params(self) -> int:
        """Number of weights; a float32 checkpoint holds four bytes for each."""
        block = 12 * self.n_embd**2 + 13 * self.n_embd  # of which nine are the biases of products, four of norms
        return (self.n_vocab + self.n_ctx) * self.n_embd + self.n_layer * block + 2 * self.n_embd

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight, as OpenAI's code creates them; matrices are [inputs, outputs]."""
        embd = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"model/wpe": (self.n_ctx, embd), "model/wte": (self.n_vocab, embd)}

        def norm(name: str) -> None:
            shapes[f"{name}/g"] = shapes[f"{name}/b"] = (embd,)

        def conv1d(name: str, n_in: int, n_out: int) -> None:
            shapes[f"{name}/w"], shapes[f"{name}/b"] = (n_in, n_out), (n_out,)

        for layer in range(self.n_layer):
            block = f"model/h{layer}"
            norm(f"{block}/ln_1")
            conv1d(f"{block}/attn/c_attn", embd, 3 * embd)
            conv1d(f"{block}/attn/c_proj", embd, embd)
            norm(f"{block}/ln_2")
            conv1d(f"{block}/mlp/c_fc", embd, 4 * embd)
            conv1d(f"{block}/mlp/c_proj", 4 * embd, embd)
        norm("model/ln_f")
        return shapes


def load_hparams(path: Path) -> HParams:
    """Reads `hparams.json`; a key that is missing takes its default, as in OpenAI's code.

    Raises GPT2Error, naming the file, if it is not valid or holds a key that GPT-2 does not have.
    """
    values = files.read_json(path)
    names = [field.name for field in dataclasses.fields(HParams)]
    if not isinstance(values, dict) or "n_vocab" not in values or not set(values) <= set(names):
        found = reprlib.repr(values)
        raise GPT2Error(f"{path} must be a JSON object with the keys {', '.join(names)}; it holds {found}")
    try:
        return HParams(**values)
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error
