"""transformer-lm's `lm.inference`: a model that takes and gives pieces of text.

>>> import lm.inference as lmi
>>> mw = lmi.ModelWrapper.load(Path("de345-root"))
>>> mw.sp_model.DecodePieces(mw.generate_tokens(mw.tokenize("Das blaue Pferd"), tokens_to_generate=16, top_k=8))

docs/transformer-lm.md says where it differs from the old one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt2 import files, generate
from gpt2.engine.batch import Batch
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.formats.transformer_lm import directory as transformer_lm
from gpt2.hparams import HPARAMS_FILE
from gpt2.request import DEFAULT_PRECISION, Sampling, check_precision, require_integer
from gpt2.text.sentencepiece import SentencePiece
from lm import scores, words
from lm.common import END_OF_LINE, END_OF_TEXT

Scored = list[tuple[float, str]]


class HParams(NamedTuple):
    """The sizes, as transformer-lm calls them."""

    n_vocab: int
    n_ctx: int
    n_embed: int  # width of the embeddings
    n_hidden: int  # of the layers
    n_head: int
    n_layer: int
    gradient_checkpointing: bool = False


class Model:
    """What computes."""

    def __init__(self, engine: generate.Model) -> None:
        self.engine = engine

    @property
    def hparams(self) -> HParams:
        own = self.engine.hparams
        return HParams(own.n_vocab, own.n_ctx, own.token_size, own.n_embd, own.n_head, own.n_layer)


class ModelWrapper:
    """A model and its vocabulary. Texts are lists of pieces, as `tokenize` gives them; an unknown piece is `<unk>`.

    Where the old one failed this one goes on: an empty text begins with END_OF_TEXT, and of one that is longer than the
    window its end counts, but where each piece is scored.
    """

    END_OF_LINE = END_OF_LINE
    END_OF_TEXT = END_OF_TEXT
    prefix_too = False  # whether generate_tokens returns the prefix before the new pieces, as until 19 July 2020

    def __init__(self, model: Model, sp_model: Any, params: dict[str, Any] | None = None) -> None:
        """sp_model: a SentencePieceProcessor. params: of the training."""
        self.model, self.sp_model, self.params = model, sp_model, params or {}

    @classmethod
    def load(
        cls, root: str | os.PathLike[str], *, precision: str = DEFAULT_PRECISION, threads: int | None = None
    ) -> ModelWrapper:
        """A model directory of any format whose vocabulary is SentencePiece.

        precision: of the weights in memory. threads: that compute; all cores if None. Raises GPT2Error if it is not
        there, damaged, or of another vocabulary.
        """
        check_precision(precision)
        directory = find_model(os.fspath(root))
        vocabulary = load_vocabulary(directory)
        if not isinstance(vocabulary, SentencePiece):
            raise GPT2Error(
                f"{directory.path} has no SentencePiece vocabulary, which lm needs; gpt2.generate takes any"
            )
        model = Model(generate.load_weights(directory, vocabulary, precision, threads=threads))
        is_theirs = transformer_lm.is_model(directory.path) and not files.is_file(directory.path / HPARAMS_FILE)
        params = transformer_lm.read_params(directory.path) if is_theirs else {"hparams": model.hparams._asdict()}
        return cls(model, vocabulary.processor, params)

    def tokenize(self, s: str) -> list[str]:
        """Text -> pieces, the space of each word in front of it as `▁`; line ends and double spaces are lost."""
        return self.sp_model.EncodeAsPieces(s)

    def token_to_id(self, token: str) -> int:
        return self.sp_model.PieceToId(token)

    def id_to_token(self, token_id: int) -> str:
        return self.sp_model.IdToPiece(int(token_id))

    def get_log_probs(self, tokens: Sequence[str]) -> scores.LogProbs:
        """What each position says of the next piece: [len(tokens), n_vocab] float32, an array with a tensor's numpy,
        exp and topk.

        Put END_OF_TEXT before the beginning of a text. Raises UsageError, a ValueError, for more than n_ctx pieces.
        """
        return scores.of_all(self.model.engine, self._ids_of_a_window(tokens))

    def get_occurred_log_probs(self, tokens: Sequence[str]) -> Scored:
        """The log-probability of each piece from the second one on, and the piece."""
        ids = self._ids_of_a_window(tokens)
        if len(ids) < 2:
            return []
        (found,) = scores.of_texts(self.model.engine, [ids])
        return list(zip(found.tolist(), tokens[1:]))

    def get_next_top_k(self, tokens: Sequence[str], top_k: int) -> Scored:
        """The log-probabilities of the top_k likeliest next pieces, and these, likeliest first; 0 means all."""
        n = require_integer("top_k", top_k) or self.model.hparams.n_vocab
        found = scores.following(self.model.engine, self._ids(tokens), n)
        return sorted(((log_prob, self.id_to_token(token)) for token, log_prob in found), reverse=True)

    def get_next_top_p_nucleus(self, tokens: Sequence[str], top_p: float) -> scores.LogProbs:
        """The log-probabilities of the next piece [n_vocab]: -inf of all but the likeliest whose probabilities together
        reach top_p."""
        n_vocab = self.model.hparams.n_vocab
        ids, values = zip(*scores.following(self.model.engine, self._ids(tokens), n_vocab))
        before = np.cumsum(np.exp(values)) - np.exp(values)
        kept = before <= top_p
        kept[0] = True
        found = np.full(n_vocab, -np.inf, np.float32)
        found[np.array(ids)[kept]] = np.array(values)[kept]
        return found.view(scores.LogProbs)

    def generate_tokens(
        self,
        tokens_prefix: Sequence[str],
        tokens_to_generate: int,
        top_k: int,
        top_p: float = 0.0,
        temperature: float = 1.0,
    ) -> list[str]:
        """The pieces that the model goes on with, tokens_to_generate of them.

        top_k: among so many likeliest, 0 and more than there are mean all; top_p above 0 replaces it. temperature: 0 is
        greedy. The random numbers follow from NumPy's, so that `numpy.random.seed` repeats them.
        """
        sampling = Sampling(temperature, 0 if top_p > 0 else top_k, min(1.0, max(0.0, top_p)))
        seed = int(np.random.randint(1 << 31))
        row = TokenSequence(
            self._ids(tokens_prefix), sampling, seed, length=require_integer("tokens_to_generate", tokens_to_generate)
        )
        new: list[str] = []
        with Batch(self.model.engine.backend, self.model.engine.prefixes) as batch:
            if row.length:
                batch.add(row)
            while len(new) < tokens_to_generate:
                new += [self.id_to_token(choice.id) for choice in batch.step()]
        return [*tokens_prefix, *new] if self.prefix_too else new

    def get_occurred_word_log_probs(self, tokens: Sequence[str]) -> Scored:
        """The log-probability of each word from the second piece on, among words, and the word: see `words.scored`."""
        pieces = [self.id_to_token(i) for i in range(self.model.hparams.n_vocab)]
        return words.scored(tokens, self.get_log_probs(tokens).numpy(), pieces, self.token_to_id)

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        return [self.token_to_id(token) for token in tokens] or [self.model.engine.encoder.end_of_text]

    def _ids_of_a_window(self, tokens: Sequence[str]) -> list[int]:
        if len(tokens) > self.model.hparams.n_ctx:
            raise UsageError(f"there are {len(tokens)} pieces, and the window has {self.model.hparams.n_ctx}")
        return self._ids(tokens)
