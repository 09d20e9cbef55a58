"""OpenAI's module `encoder`, with its names, on top of `gpt2.encoder`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpt2 import encoder
from gpt2.errors import UsageError
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_vocabulary

bytes_to_unicode = encoder.byte_characters


class Encoder(encoder.Encoder):
    """An encoder with the attributes of OpenAI's class."""

    def __init__(self, encoder: dict[str, int], bpe_merges: Sequence[tuple[str, str]], errors: str = "replace") -> None:
        """Create an encoder.

        Args:
            encoder: The id of each piece.
            bpe_merges: The merges, in the order of their ranks.
            errors: Treatment of invalid UTF-8 in `decode`, as in `bytes.decode`.
        """
        super().__init__(encoder, bpe_merges)
        self.errors = errors
        self.encoder = encoder
        self.decoder = {i: piece for piece, i in encoder.items()}
        self.byte_encoder = self.characters
        self.byte_decoder = {character: byte for byte, character in self.characters.items()}
        self.bpe_ranks = self.ranks

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of ids.

        Raises:
            GPT2Error: If the vocabulary does not have an id.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors=self.errors)


def get_encoder(model_name: str, models_dir: str = DEFAULT_MODELS_DIR) -> Encoder:
    """Return the encoder of a model.

    Args:
        model_name: Name of the model in `models_dir`, or the path of its folder.
        models_dir: Folder that contains the models.

    Raises:
        GPT2Error: If the vocabulary is missing or damaged.
        UsageError: If the vocabulary is not a byte-level BPE.
    """
    vocabulary = find_vocabulary(str(model_name), str(models_dir))
    if not isinstance(vocabulary, encoder.Encoder):
        raise UsageError(
            f"{model_name} has no byte-level BPE vocabulary, which OpenAI's modules need; use gpt2.generate instead"
        )
    result = Encoder(vocabulary.ids_of, vocabulary.merges())
    result.added = vocabulary.added  # none, if the files are OpenAI's
    return result
