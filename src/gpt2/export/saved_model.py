"""A TensorFlow SavedModel, which TensorFlow Serving and TensorFlow alone run: no module of this library is needed.

Its signatures, of which the first is the default one too:

    generate  text [N], or ids [N, T] if the vocabulary is no byte-level BPE -> text [N] and ids [N, length], new ones
    score     ids [N, T] -> logprobs [N, T - 1], of each id but the first, given those before it
    encode    text [] -> ids [T], of a byte-level BPE

Inputs of `generate` that may be left out: length, temperature, top_k, top_p, seed; they mean what they mean everywhere
here. Shapes: N texts, T ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2 import model as blocks
from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.engine.batch import Batch
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.export import compare, options
from gpt2.export.bpe_ops import GraphEncoder
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.weights import LM_HEAD, PREFIX, WTE, Layout, Weight, nest
from gpt2.hparams import HParams
from gpt2.openai.sample import choose_token as choose
from gpt2.openai.sample import sample_text
from gpt2.text.vocabulary import Vocabulary

NAME, IS_FILE = "saved_model", False
TRIED = 16  # ids whose log-probabilities and greedy continuation are compared
TOLERANCE = 1e-3  # of log-probabilities, between this and another backend
DEFAULTS: dict[str, np.generic] = {
    "temperature": np.float32(1),
    "top_k": np.int32(0),
    "top_p": np.float32(1),
    "seed": np.int64(0),
}


def check(hparams: HParams, vocabulary: Vocabulary, chosen: ExportOptions) -> None:
    """Raises UsageError for a dtype; every model can be written."""
    options.resolve_dtype(chosen, [options.FLOAT32], NAME)


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    chosen: ExportOptions = DEFAULT_OPTIONS,
    report: ByteProgress = no_callback,
) -> None:
    """Writes all files into the folder, all weights held in memory meanwhile. Raises GPT2Error if one cannot be."""
    weights = {name: _variable(name, weight) for name, weight in compare.with_progress(model, report).items()}
    served = SavedModelModule(model.hparams, weights, vocabulary)
    signatures = served.signatures()
    try:
        tf.saved_model.save(served, str(folder), {"serving_default": signatures["generate"], **signatures})
    except tf.errors.OpError as error:
        raise GPT2Error(f"the model could not be written to {folder}: {error.message}") from error


def _variable(name: str, weight: Weight) -> tf.Variable:
    """As `model.py` wants it."""
    layout = Layout.OUT_IN if name in (WTE, LM_HEAD) else Layout.IN_OUT
    array = weight.array() if weight.layout in (None, layout) else weight.array().T
    return tf.Variable(array, trainable=False, name=name.removeprefix(PREFIX))


class SavedModelModule(tf.Module):
    """A model with its vocabulary as functions of TensorFlow."""

    def __init__(self, hparams: HParams, weights: dict[str, tf.Variable], vocabulary: Vocabulary) -> None:
        super().__init__()
        self.hparams, self.weights = hparams, weights
        self.is_text = isinstance(vocabulary, Encoder)
        self.to_ids: Callable | None = GraphEncoder(vocabulary) if isinstance(vocabulary, Encoder) else None
        self.bytes_of = [vocabulary.decode_bytes([i]) for i in range(vocabulary.n_vocab)]
        can_start = not isinstance(vocabulary, Encoder) or END_OF_TEXT in vocabulary.ids_of
        self.start = vocabulary.end_of_text if can_start else None

    def signatures(self) -> dict[str, Callable]:
        """By their names."""
        ids = tf.TensorSpec([None, None], tf.int32, "ids")
        found = {"generate": self._generate(), "score": tf.function(self._score, input_signature=[ids])}
        if self.is_text:
            found["encode"] = tf.function(self._encode, input_signature=[tf.TensorSpec([], tf.string, "text")])
        return found

    def _generate(self) -> Callable:
        """`generate`, whose defaults are part of its signature."""
        values = {"length": np.int32(self.hparams.n_ctx // 2), **DEFAULTS}
        first = (
            tf.TensorSpec([None], tf.string, "text") if self.is_text else tf.TensorSpec([None, None], tf.int32, "ids")
        )
        length, temperature, top_k, top_p, seed = (tf.constant(value) for value in values.values())

        def generate(
            prompts: tf.Tensor,
            length: tf.Tensor = length,
            temperature: tf.Tensor = temperature,
            top_k: tf.Tensor = top_k,
            top_p: tf.Tensor = top_p,
            seed: tf.Tensor = seed,
        ) -> dict[str, tf.Tensor]:
            _check(length, temperature, top_k, top_p)

            def one(both: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
                return self._continued(self._ids(both[0]), length, temperature, top_k, top_p, seed, both[1])

            places = tf.range(tf.shape(prompts)[0], dtype=tf.int64)
            ids = tf.map_fn(one, (prompts, places), fn_output_signature=tf.TensorSpec([None], tf.int32))
            return {"text": self._text(ids), "ids": ids}

        specs = [tf.TensorSpec([], value.dtype, name) for name, value in values.items()]
        return tf.function(generate, input_signature=[first, *specs])

    def _encode(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"ids": self._ids(text)}

    def _ids(self, prompt: tf.Tensor) -> tf.Tensor:
        """text [] or ids [T] -> ids [T]."""
        return self.to_ids(prompt) if self.to_ids else self._known(prompt)

    def _known(self, ids: tf.Tensor) -> tf.Tensor:
        """The ids, once they are found to be some of the vocabulary."""
        message = f"ids must be from 0 to {self.hparams.n_vocab - 1}"
        tf.debugging.assert_equal(tf.reduce_all((ids >= 0) & (ids < self.hparams.n_vocab)), True, message)
        return ids

    def _text(self, ids: tf.Tensor) -> tf.Tensor:
        """ids [N, T] -> text [N]; bytes that are not UTF-8 become U+FFFD."""
        joined = tf.strings.reduce_join(tf.gather(tf.constant(self.bytes_of), ids), axis=-1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def _continued(
        self,
        prompt: tf.Tensor,
        length: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
        place: tf.Tensor,
    ) -> tf.Tensor:
        """prompt [T] -> `length` new ids; the random numbers belong to seed, place and token."""
        if self.start is None:
            tf.debugging.assert_positive(tf.size(prompt), "this vocabulary has no token to start from: give a text")
        else:
            prompt = tf.cond(tf.size(prompt) > 0, lambda: prompt, lambda: tf.constant([self.start], tf.int32))
        key = tf.stack([seed, place])

        def next_of(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
            def drawn(left: tf.Tensor) -> tf.Tensor:
                numbers = tf.random.experimental.stateless_fold_in(key, tf.shape(tokens, tf.int64)[1])
                return tf.random.stateless_categorical(left, 1, numbers, tf.int32)[:, 0]

            return choose(logits, drawn, temperature, top_k, top_p)

        return sample_text(self._nested(), self.hparams, prompt[None], length, next_of)[0, tf.size(prompt) :]

    def _score(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        n_ctx = self.hparams.n_ctx
        tf.debugging.assert_less_equal(tf.shape(ids)[1], n_ctx, f"ids must be at most {n_ctx} for each text")
        weights, ids = self._nested(), self._known(ids)

        def one(row: tf.Tensor) -> tf.Tensor:
            logits = blocks.model(weights, self.hparams, row[None, :-1])[0][0]  # [T - 1, V]
            found = tf.gather(logits, row[1:], batch_dims=1)
            return found - tf.reduce_logsumexp(logits, axis=-1)

        spec = tf.TensorSpec([None], tf.float32)
        return {"logprobs": tf.map_fn(one, ids, parallel_iterations=1, fn_output_signature=spec)}

    def _nested(self) -> blocks.Weights:
        """Read once, not in each step of a loop."""
        return nest((name, variable.read_value()) for name, variable in self.weights.items())


def _check(length: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> None:
    """As `request.Sampling` does it for others, when the graph runs."""
    tf.debugging.assert_non_negative(length, "length must be at least 0")
    tf.debugging.assert_equal((temperature >= 0) & (temperature < np.inf), True, "temperature must be at least 0")
    tf.debugging.assert_non_negative(top_k, "top_k must be at least 0")
    tf.debugging.assert_equal((top_p >= 0) & (top_p <= 1), True, "top_p must be from 0 to 1")


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, chosen: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Loads it, and compares what it scores and what it writes with a backend of the library.

    Raises GPT2Error for what differs.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    size = min(TRIED, model.hparams.n_ctx)
    ids = np.random.default_rng(0).integers(model.hparams.n_vocab, size=size).astype(np.int32)
    with Batch(load_backend(model)) as batch:
        number = batch.add(TokenSequence(ids.tolist(), echo=True))
        while not batch.step():
            pass
        expected = [choice.logprob for choice in batch.prompt_choices(number) if choice]
    found = signatures["score"](ids=tf.constant(ids[None]))["logprobs"][0].numpy()
    if len(found) != len(expected) or not (np.abs(found - expected) < TOLERANCE).all():
        raise GPT2Error("what was written scores other log-probabilities than the model")
    _verify_text(signatures, vocabulary, model.hparams)


def _verify_text(signatures: Any, vocabulary: Vocabulary, hparams: HParams) -> None:
    """Whether it encodes and decodes as the vocabulary does."""
    text = "Hello, it's 1 world:\n\n  größer 東京 🙂"
    settings = {"length": np.int32(4), **DEFAULTS, "temperature": np.float32(0)}
    given: Any = [text]
    if isinstance(vocabulary, Encoder):
        if signatures["encode"](text=tf.constant(text))["ids"].numpy().tolist() != vocabulary.encode(text):
            raise GPT2Error("what was written encodes text to other ids than the vocabulary")
    else:
        given = [[0]]
    name = "text" if isinstance(vocabulary, Encoder) else "ids"
    values = {key: tf.constant(value) for key, value in settings.items()}
    output = signatures["generate"](**{name: tf.constant(given)}, **values)
    said = b"".join(vocabulary.decode_bytes([i]) for i in output["ids"].numpy()[0])
    if output["text"].numpy()[0].decode("utf-8") != said.decode("utf-8", errors="replace"):
        raise GPT2Error("what was written decodes ids to another text than the vocabulary")
