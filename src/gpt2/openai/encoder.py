"""OpenAI's module `encoder`: the names that programs know over `gpt2.encoder`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpt2 import encoder
from gpt2.errors import UsageError
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_vocabulary

bytes_to_unicode = encoder.byte_characters


class Encoder(encoder.Encoder):
    """errors: what `decode` does with bytes that are not UTF-8, as Python names it."""

    def __init__(self, encoder: dict[str, int], bpe_merges: Sequence[tuple[str, str]], errors: str = "replace") -> None:
        super().__init__(encoder, bpe_merges)
        self.errors = errors
        self.encoder, self.decoder = encoder, {i: piece for piece, i in encoder.items()}
        self.byte_encoder = self.characters
        self.byte_decoder = {character: byte for byte, character in self.characters.items()}
        self.bpe_ranks = self.ranks

    def decode(self, tokens: Iterable[int]) -> str:
        """Ids -> text; raises GPT2Error for an id that the vocabulary does not have."""
        return self.decode_bytes(tokens).decode("utf-8", errors=self.errors)


def get_encoder(model_name: str, models_dir: str = DEFAULT_MODELS_DIR) -> Encoder:
    """The encoder of a model, by its name or its folder's path. Raises GPT2Error if it is not there or damaged."""
    found = find_vocabulary(str(model_name), str(models_dir))
    if not isinstance(found, encoder.Encoder):
        raise UsageError(f"{model_name} has no byte-level BPE, which OpenAI's modules work with")
    return Encoder(found.ids_of, found.merges())
