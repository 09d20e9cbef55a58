"""transformer-lm's module `lm.inference`: a model whose input and output are pieces of text.

>>> import lm.inference as lmi
>>> mw = lmi.ModelWrapper.load(Path("de345-root"))
>>> mw.sp_model.DecodePieces(mw.generate_tokens(mw.tokenize("Das blaue Pferd"), tokens_to_generate=16, top_k=8))
'Das blaue Pferd ...'

docs/transformer-lm.md lists the differences from the original.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt2 import files, generate
from gpt2.cli.command import print_error_line
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
from lm.words import ScoredTexts

PREFIX_NOTICE = (
    "lm: generate_tokens returns the prefix and the new pieces, as in transformer-lm before 19 July 2020; for programs"
    " written later, which expect only the new pieces, set lmi.ModelWrapper.prefix_too = False"
)
_unprinted_notices = [PREFIX_NOTICE]  # each line is printed once in a process


class HParams(NamedTuple):
    """A model's sizes, under transformer-lm's names."""

    n_vocab: int
    n_ctx: int
    n_embed: int  # width of the embeddings
    n_hidden: int  # width of the layers
    n_head: int
    n_layer: int
    gradient_checkpointing: bool = False


class Model:
    """The replacement of transformer-lm's PyTorch module: the library's model, with `hparams` but without layers."""

    def __init__(self, engine: generate.Model) -> None:
        """Wrap a model of the library."""
        self.engine = engine

    @property
    def hparams(self) -> HParams:
        """The model's sizes."""
        sizes = self.engine.hparams
        return HParams(sizes.n_vocab, sizes.n_ctx, sizes.token_size, sizes.n_embd, sizes.n_head, sizes.n_layer)


class ModelWrapper:
    """A model and its vocabulary.

    Texts are lists of pieces, as `tokenize` returns them; an unknown piece counts as `<unk>`. Where the original raised
    an error, this class continues: an empty text starts with END_OF_TEXT, and generation from a text longer than the
    window uses its end. Only methods that score each piece are limited to the window.
    """

    END_OF_LINE = END_OF_LINE
    END_OF_TEXT = END_OF_TEXT
    prefix_too = True  # whether generate_tokens also returns the prefix, as it did before 19 July 2020

    def __init__(self, model: Model, sp_model: Any, params: dict[str, Any] | None = None) -> None:
        """Wrap a model.

        Args:
            model: The model.
            sp_model: A SentencePieceProcessor.
            params: The training parameters, as in `params.json`.
        """
        self.model = model
        self.sp_model = sp_model
        self.params = params or {}

    @classmethod
    def load(
        cls, root: str | os.PathLike[str], *, precision: str = DEFAULT_PRECISION, threads: int | None = None
    ) -> ModelWrapper:
        """Load a model directory of any format that has a SentencePiece vocabulary.

        Args:
            root: Path of the model directory.
            precision: Precision of the weights in memory.
            threads: Number of compute threads; all cores if None.

        Raises:
            GPT2Error: If the model is missing or damaged, or has another kind of vocabulary.
        """
        check_precision(precision)
        directory = find_model(os.fspath(root))
        vocabulary = load_vocabulary(directory)
        if not isinstance(vocabulary, SentencePiece):
            raise GPT2Error(
                f"{directory.path} has no SentencePiece vocabulary, which lm needs; use gpt2.generate instead"
            )
        model = Model(generate.load_weights(directory, vocabulary, precision, threads=threads))
        has_params = transformer_lm.is_model(directory.path) and not files.is_file(directory.path / HPARAMS_FILE)
        params = transformer_lm.read_params(directory.path) if has_params else {"hparams": model.hparams._asdict()}
        return cls(model, vocabulary.processor, params)

    def tokenize(self, s: str) -> list[str]:
        """Split a text into pieces. `▁` stands for the space before a word; newlines and repeated spaces are lost."""
        return self.sp_model.EncodeAsPieces(s)

    def token_to_id(self, token: str) -> int:
        """Return the id of a piece, or 0 if it is unknown."""
        return self.sp_model.PieceToId(token)

    def id_to_token(self, token_id: int) -> str:
        """Return the piece of an id."""
        return self.sp_model.IdToPiece(int(token_id))

    def get_log_probs(self, tokens: Sequence[str]) -> scores.LogProbs:
        """Return the log-probabilities of the next piece at each position of a text.

        Args:
            tokens: The pieces of the text. At the start of a text, put END_OF_TEXT before them.

        Returns:
            [len(tokens), n_vocab] float32: a NumPy array that also has a tensor's methods numpy, exp and topk.

        Raises:
            UsageError: If there are more than n_ctx pieces. UsageError is a ValueError.
        """
        return scores.all_log_probs(self.model.engine, self._window_ids(tokens))

    def get_occurred_log_probs(self, tokens: Sequence[str]) -> ScoredTexts:
        """Return the pieces of a text from the second one on, each after its log-probability.

        Raises:
            UsageError: If there are more than n_ctx pieces. UsageError is a ValueError.
        """
        ids = self._window_ids(tokens)
        if len(ids) < 2:
            return []
        (log_probs,) = scores.text_log_probs(self.model.engine, [ids])
        return list(zip(log_probs.tolist(), tokens[1:]))

    def get_next_top_k(self, tokens: Sequence[str], top_k: int) -> ScoredTexts:
        """Return the most likely next pieces, each after its log-probability, most likely first.

        Args:
            tokens: The pieces of the text.
            top_k: Number of pieces to return; 0 returns all.
        """
        count = require_integer("top_k", top_k) or self.model.hparams.n_vocab
        top_ids = scores.top_next_ids(self.model.engine, self._ids(tokens), count)
        return sorted(((log_prob, self.id_to_token(token)) for token, log_prob in top_ids), reverse=True)

    def get_next_top_p_nucleus(self, tokens: Sequence[str], top_p: float) -> scores.LogProbs:
        """Return the log-probabilities of the next piece within the nucleus.

        Args:
            tokens: The pieces of the text.
            top_p: Probability that the most likely pieces have to reach together.

        Returns:
            [n_vocab] float32: -inf for all pieces outside of the nucleus.
        """
        n_vocab = self.model.hparams.n_vocab
        ids, log_probs = zip(*scores.top_next_ids(self.model.engine, self._ids(tokens), n_vocab))
        probability_before = np.cumsum(np.exp(log_probs)) - np.exp(log_probs)
        in_nucleus = probability_before <= top_p
        in_nucleus[0] = True
        filtered = np.full(n_vocab, -np.inf, np.float32)
        filtered[np.array(ids)[in_nucleus]] = np.array(log_probs)[in_nucleus]
        return filtered.view(scores.LogProbs)

    def generate_tokens(
        self,
        tokens_prefix: Sequence[str],
        tokens_to_generate: int,
        top_k: int,
        top_p: float = 0.0,
        temperature: float = 1.0,
    ) -> list[str]:
        """Generate pieces that continue a text.

        If `prefix_too` is true, the first call in a process prints on stderr how to get only the new pieces.
        The random numbers are derived from NumPy's, so `numpy.random.seed` makes them repeatable.

        Args:
            tokens_prefix: The pieces of the text.
            tokens_to_generate: Number of new pieces.
            top_k: Sample from the k most likely pieces; 0, or more than the vocabulary has, means all.
            top_p: Sample from the most likely pieces whose probabilities reach p; above 0 it replaces `top_k`.
            temperature: Divides the logits; 0 is greedy.

        Returns:
            The prefix and the new pieces; only the new pieces if `prefix_too` is false.

        Raises:
            UsageError: If a value is not allowed.
        """
        sampling = Sampling(temperature, 0 if top_p > 0 else top_k, min(1.0, max(0.0, top_p)))
        seed = int(np.random.randint(1 << 31))
        length = require_integer("tokens_to_generate", tokens_to_generate)
        sequence = TokenSequence(self._ids(tokens_prefix), sampling, seed, length=length)
        new_tokens: list[str] = []
        with Batch(self.model.engine.backend, self.model.engine.prefixes) as batch:
            if sequence.length:
                batch.add(sequence)
            while len(new_tokens) < tokens_to_generate:
                new_tokens += [self.id_to_token(choice.id) for choice in batch.step()]
        if not self.prefix_too:
            return new_tokens
        with contextlib.suppress(IndexError):  # pop, unlike a flag, is safe in a server with threads
            print_error_line(_unprinted_notices.pop())
        return [*tokens_prefix, *new_tokens]

    def get_occurred_word_log_probs(self, tokens: Sequence[str]) -> ScoredTexts:
        """Return the words of a text from the second piece on, each after its log-probability (see `score_words`).

        Raises:
            UsageError: If there are more than n_ctx pieces. UsageError is a ValueError.
        """
        vocabulary = [self.id_to_token(i) for i in range(self.model.hparams.n_vocab)]
        return words.score_words(tokens, self.get_log_probs(tokens).numpy(), vocabulary, self.token_to_id)

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        return [self.token_to_id(token) for token in tokens] or [self.model.engine.encoder.end_of_text]

    def _window_ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the ids of a text that must fit the window."""
        if len(tokens) > self.model.hparams.n_ctx:
            raise UsageError(
                f"there are {len(tokens)} pieces, but the window holds {self.model.hparams.n_ctx}; shorten the text"
            )
        return self._ids(tokens)
