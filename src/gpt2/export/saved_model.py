"""Export to a TensorFlow SavedModel, which TensorFlow Serving and plain TensorFlow run without this library.

The model has these signatures, with `generate` as the default:

    generate  text [N], or ids [N, T] if the vocabulary is not a byte-level BPE -> text [N] and new ids [N, length]
    score     ids [N, T] -> logprobs [N, T - 1] of each id except the first, given the ids before it
    encode    text [] -> ids [T], only with a byte-level BPE

Optional inputs of `generate`: length, temperature, top_k, top_p, seed. They have the same meaning as in `gpt2.request`.
Shapes: N texts, T ids, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2 import model as blocks
from gpt2.encoder import Encoder
from gpt2.engine.batch import Batch
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.export import compare
from gpt2.export.bpe_ops import GraphEncoder
from gpt2.export.byte_level import warn_of_added_tokens
from gpt2.export.options import DEFAULT_OPTIONS, FLOAT32, ExportOptions, resolve_dtype
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.weights import LM_HEAD, PREFIX, WTE, Layout, Weight, nest
from gpt2.hparams import HParams
from gpt2.openai.sample import choose_token, sample_text
from gpt2.text.vocabulary import Vocabulary

NAME = "saved_model"
IS_FILE = False
VERIFIED_IDS = 16  # number of ids with compared log-probabilities
LOGPROB_TOLERANCE = 1e-3  # allowed difference between two backends
SAMPLING_DEFAULTS: dict[str, np.generic] = {
    "temperature": np.float32(1),
    "top_k": np.int32(0),
    "top_p": np.float32(1),
    "seed": np.int64(0),
}


def check(hparams: HParams, vocabulary: Vocabulary, options: ExportOptions) -> None:
    """Check the dtype; all models are supported. See `ExportFormat.check`."""
    resolve_dtype(options, [FLOAT32], NAME)
    if isinstance(vocabulary, Encoder):
        tokens = [token.content for token in vocabulary.added.tokens]
        warn_of_added_tokens(tokens, "are ordinary text for a SavedModel, which splits them into pieces")


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: ByteProgress = no_callback,
) -> None:
    """Write all files, with all weights in memory; see `ExportFormat.write`."""
    weights = {name: _make_variable(name, weight) for name, weight in compare.with_progress(model, progress).items()}
    module = SavedModelModule(model.hparams, weights, vocabulary)
    signatures = module.signatures()
    try:
        tf.saved_model.save(module, str(folder), {"serving_default": signatures["generate"], **signatures})
    except tf.errors.OpError as error:
        raise GPT2Error(f"the model could not be written to {folder}: {error.message}") from error


def _make_variable(name: str, weight: Weight) -> tf.Variable:
    """Return a weight as a variable with the layout in `gpt2.model`."""
    layout = Layout.OUT_IN if name in (WTE, LM_HEAD) else Layout.IN_OUT
    array = weight.array() if weight.layout in (None, layout) else weight.array().T
    return tf.Variable(array, trainable=False, name=name.removeprefix(PREFIX))


class SavedModelModule(tf.Module):
    """A model and its vocabulary as TensorFlow functions."""

    def __init__(self, hparams: HParams, weights: dict[str, tf.Variable], vocabulary: Vocabulary) -> None:
        """Create the module.

        Args:
            hparams: The model's hyperparameters.
            weights: Its weights by name.
            vocabulary: Its vocabulary.
        """
        super().__init__()
        self.hparams = hparams
        self.weights = weights
        self.encode: Callable | None = GraphEncoder(vocabulary) if isinstance(vocabulary, Encoder) else None
        self.token_bytes = [vocabulary.decode_bytes([token]) for token in range(vocabulary.n_vocab)]
        can_start = not isinstance(vocabulary, Encoder) or vocabulary.end_token in vocabulary.ids_of
        self.start = vocabulary.end_of_text if can_start else None

    def signatures(self) -> dict[str, Callable]:
        """Return the function of each signature by its name."""
        ids = tf.TensorSpec([None, None], tf.int32, "ids")
        functions = {"generate": self._generate(), "score": tf.function(self._score, input_signature=[ids])}
        if self.encode:
            text = tf.TensorSpec([], tf.string, "text")
            functions["encode"] = tf.function(self._encode, input_signature=[text])
        return functions

    def _generate(self) -> Callable:
        """Return the function `generate` with its default values as a part of its signature."""
        defaults = {"length": np.int32(self.hparams.n_ctx // 2), **SAMPLING_DEFAULTS}
        length, temperature, top_k, top_p, seed = (tf.constant(value) for value in defaults.values())

        def generate(
            prompts: tf.Tensor,
            length: tf.Tensor = length,
            temperature: tf.Tensor = temperature,
            top_k: tf.Tensor = top_k,
            top_p: tf.Tensor = top_p,
            seed: tf.Tensor = seed,
        ) -> dict[str, tf.Tensor]:
            _check_inputs(length, temperature, top_k, top_p)

            def choose(logits: tf.Tensor, draw: Callable) -> tf.Tensor:
                return choose_token(logits, draw, temperature, top_k, top_p)

            def continue_prompt(prompt_and_index: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
                prompt, index = prompt_and_index
                return self._continue(self._prompt_ids(prompt), length, choose, tf.stack([seed, index]))

            indices = tf.range(tf.shape(prompts)[0], dtype=tf.int64)
            new_ids = tf.TensorSpec([None], tf.int32)
            ids = tf.map_fn(continue_prompt, (prompts, indices), fn_output_signature=new_ids)
            return {"text": self._decode(ids), "ids": ids}

        prompts = (
            tf.TensorSpec([None], tf.string, "text") if self.encode else tf.TensorSpec([None, None], tf.int32, "ids")
        )
        settings = [tf.TensorSpec([], value.dtype, name) for name, value in defaults.items()]
        return tf.function(generate, input_signature=[prompts, *settings])

    def _encode(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"ids": self._prompt_ids(text)}

    def _prompt_ids(self, prompt: tf.Tensor) -> tf.Tensor:
        """Return the ids [T] of a text [] or of ids [T]."""
        return self.encode(prompt) if self.encode else self._check_ids(prompt)

    def _check_ids(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the ids after checking in the graph that they are in the vocabulary."""
        message = f"ids must be from 0 to {self.hparams.n_vocab - 1}"
        tf.debugging.assert_equal(tf.reduce_all((ids >= 0) & (ids < self.hparams.n_vocab)), True, message)
        return ids

    def _decode(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the texts [N] of ids [N, T]; bytes that are not UTF-8 become U+FFFD."""
        joined = tf.strings.reduce_join(tf.gather(tf.constant(self.token_bytes), ids), axis=-1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def _continue(self, prompt: tf.Tensor, length: tf.Tensor, choose: Callable, key: tf.Tensor) -> tf.Tensor:
        """Generate text after a prompt.

        Args:
            prompt: Ids [T].
            length: The number of new ids [].
            choose: Chooses ids [B] from logits [B, V] and a function that draws from filtered logits.
            key: Seed and index of the prompt [2], which determine the random numbers at each position.

        Returns:
            The new ids [length].
        """
        if self.start is None:
            tf.debugging.assert_positive(tf.size(prompt), "the vocabulary has no end-of-text token; give a prompt")
        else:
            prompt = tf.cond(tf.size(prompt) > 0, lambda: prompt, lambda: tf.constant([self.start], tf.int32))

        def next_ids(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
            def draw(filtered: tf.Tensor) -> tf.Tensor:
                step_seed = tf.random.experimental.stateless_fold_in(key, tf.shape(tokens, tf.int64)[1])
                return tf.random.stateless_categorical(filtered, 1, step_seed, tf.int32)[:, 0]

            return choose(logits, draw)

        return sample_text(self._read_weights(), self.hparams, prompt[None], length, next_ids)[0, tf.size(prompt) :]

    def _score(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        n_ctx = self.hparams.n_ctx
        tf.debugging.assert_less_equal(tf.shape(ids)[1], n_ctx, f"ids must be at most {n_ctx} for each text")
        weights = self._read_weights()
        ids = self._check_ids(ids)

        def score_text(row: tf.Tensor) -> tf.Tensor:
            logits = blocks.model(weights, self.hparams, row[None, :-1])[0][0]  # [T - 1, V]
            return tf.gather(logits, row[1:], batch_dims=1) - tf.reduce_logsumexp(logits, axis=-1)

        logprobs = tf.TensorSpec([None], tf.float32)
        return {"logprobs": tf.map_fn(score_text, ids, parallel_iterations=1, fn_output_signature=logprobs)}

    def _read_weights(self) -> blocks.Weights:
        """Return the nested weights, read outside of loops to read them only once."""
        return nest((name, variable.read_value()) for name, variable in self.weights.items())


def _check_inputs(length: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> None:
    """Check the inputs in the graph, by the rules of `request.Sampling`."""
    tf.debugging.assert_non_negative(length, "length must be at least 0")
    tf.debugging.assert_equal((temperature >= 0) & (temperature < np.inf), True, "temperature must be at least 0")
    tf.debugging.assert_non_negative(top_k, "top_k must be at least 0")
    tf.debugging.assert_equal((top_p >= 0) & (top_p <= 1), True, "top_p must be from 0 to 1")


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Compare log-probabilities with another backend, and texts with the vocabulary; see `ExportFormat.verify`."""
    signatures = tf.saved_model.load(str(folder)).signatures
    size = min(VERIFIED_IDS, model.hparams.n_ctx)
    ids = np.random.default_rng(0).integers(model.hparams.n_vocab, size=size).astype(np.int32)
    with Batch(load_backend(model)) as batch:
        number = batch.add(TokenSequence(ids.tolist(), echo=True))
        while not batch.step():
            pass
        expected = [choice.logprob for choice in batch.prompt_choices(number) if choice]
    logprobs = signatures["score"](ids=tf.constant(ids[None]))["logprobs"][0].numpy()
    if len(logprobs) != len(expected) or not (np.abs(logprobs - expected) < LOGPROB_TOLERANCE).all():
        raise GPT2Error("the log-probabilities of the exported model differ from the original")
    _verify_vocabulary(signatures, vocabulary)


def _verify_vocabulary(signatures: Any, vocabulary: Vocabulary) -> None:
    text = "Hello, it's 1 world:\n\n  größer 東京 🙂"
    if isinstance(vocabulary, Encoder):
        if signatures["encode"](text=tf.constant(text))["ids"].numpy().tolist() != vocabulary.encode(text):
            raise GPT2Error("the exported model and the vocabulary encode a text to different ids")
        prompt = {"text": tf.constant([text])}
    else:
        prompt = {"ids": tf.constant([[0]])}
    settings = {"length": np.int32(4), **SAMPLING_DEFAULTS, "temperature": np.float32(0)}
    output = signatures["generate"](**prompt, **{name: tf.constant(value) for name, value in settings.items()})
    new_bytes = b"".join(vocabulary.decode_bytes([token]) for token in output["ids"].numpy()[0])
    if output["text"].numpy()[0].decode("utf-8") != new_bytes.decode("utf-8", errors="replace"):
        raise GPT2Error("the exported model and the vocabulary decode ids to different texts")
