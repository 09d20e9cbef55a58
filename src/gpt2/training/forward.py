"""The loss of a batch and its gradients: `gpt2.model`'s blocks with dropout, bfloat16 products and little memory.

Shapes: B batch, T time, E embedding, W width of wte (E, but for some variants), V vocabulary, N = B*T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.training.settings import HEAD_ROWS


class Regime(NamedTuple):
    """How the forward pass is computed; with the defaults it is `gpt2.model`'s."""

    dtype: tf.DType = tf.float32  # of the matrix products; norms, softmax and the residual stay float32
    dropout: float = 0.0  # share of the embeddings' and of each sub-layer's outputs that is zeroed
    recompute: bool = False  # keep each block's input alone and compute the rest again (Chen et al. 2016)


def loss_and_gradients(
    weights: Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    regime: Regime,
    seed: tf.Tensor,
    embeddings: bool = True,
) -> tuple[tf.Tensor, Weights]:
    """inputs, targets [B, T] int32, seed [2] int32 -> mean cross-entropy in nats per token, gradients nested as the
    weights.

    embeddings: whether wte, wpe and ln_f are trained too, or the blocks alone.
    """
    weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
    outside = ("wte", "wpe", "lm_head")
    trained = {name: w for name, w in weights.items() if name not in outside and (embeddings or _is_block(name))}
    embedded = embed(weights, inputs)  # not on the tape: the gradient of a gather is as large as the vocabulary
    run = _block_function(hparams, regime, inputs.shape[0], weights["h0"])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([*tf.nest.flatten(trained), embedded])
        x = tf.reshape(_dropout(regime, seed)(embedded), [-1, hparams.token_size])
        x = model.enter(weights, x)
        for layer in range(hparams.n_layer):
            leaves = tf.nest.flatten(weights[f"h{layer}"])
            x = run(x, tf.random.fold_in(seed, layer), tf.constant(model.score_scale(hparams, layer)), *leaves)
        x = model.leave(weights, hparams, x)
    loss, dx, d_head = _head(x, model.output(weights), tf.reshape(targets, [-1]), regime.dtype, embeddings)
    gradients, d_embedded = tape.gradient(x, [trained, embedded], output_gradients=dx)
    if embeddings:
        if "lm_head" in weights:
            gradients["lm_head"], d_head = d_head, tf.zeros_like(weights["wte"])
        gradients["wte"] = tf.tensor_scatter_nd_add(d_head, inputs[:, :, None], d_embedded)
        unused = hparams.n_ctx - tf.shape(inputs)[1]
        gradients["wpe"] = tf.pad(tf.reduce_sum(d_embedded, axis=0), [[0, unused], [0, 0]])
    return loss, gradients


def mean_loss(weights: Weights, hparams: HParams, tokens: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """tokens [B, T+1] -> mean cross-entropy in nats per token, without dropout and gradients."""
    inputs, targets = tokens[:, :-1], tf.reshape(tokens[:, 1:], [-1])
    x = model.enter(weights, tf.reshape(embed(weights, inputs), [-1, hparams.token_size]))
    mask = model.causal_mask(tf.shape(inputs)[1])
    for layer in range(hparams.n_layer):
        w = _cast(weights[f"h{layer}"], dtype)
        x = model.block(x, w, hparams, model.score_scale(hparams, layer), tf.shape(tokens)[0], mask)[0]
    x = tf.cast(model.leave(weights, hparams, x), dtype)
    logits = tf.cast(tf.matmul(x, tf.cast(model.output(weights), dtype), transpose_b=True), tf.float32)  # [N, V]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))


def embed(weights: Weights, inputs: tf.Tensor) -> tf.Tensor:
    """inputs [B, T] -> [B, T, W]"""
    return tf.gather(weights["wte"], inputs) + weights["wpe"][: tf.shape(inputs)[1]]


def _block_function(hparams: HParams, regime: Regime, batch: int, w: Weights) -> Callable[..., tf.Tensor]:
    """x [N, E], seed [2], scale [], a block's weights in the order of `w` -> [N, E]: traced once for all blocks."""

    def run(x: tf.Tensor, seed: tf.Tensor, scale: tf.Tensor, *leaves: tf.Tensor) -> tf.Tensor:
        cast = _cast(tf.nest.pack_sequence_as(w, leaves), regime.dtype)
        mask = model.causal_mask(x.shape[0] // batch)
        return model.block(x, cast, hparams, scale, batch, mask, dropout=_dropout(regime, seed))[0]

    def run_again(
        x: tf.Tensor, seed: tf.Tensor, scale: tf.Tensor, dy: tf.Tensor, *leaves: tf.Tensor
    ) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x, *leaves])
            y = run(x, seed, scale, *leaves)
        return tape.gradient(y, [x, *leaves], output_gradients=dy)

    # Inlined, the second computation of a block would be recognised as the first one again, and that one kept.
    apart = {"_noinline": True}
    forward = tf.function(run, autograph=False, experimental_attributes=apart)
    backward = tf.function(run_again, autograph=False, experimental_attributes=apart)

    @tf.custom_gradient
    def recomputed(x: tf.Tensor, seed: tf.Tensor, scale: tf.Tensor, *leaves: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            dx, *d_leaves = backward(x, seed, scale, dy, *leaves)
            return dx, None, None, *d_leaves

        return forward(x, seed, scale, *leaves), gradient

    return recomputed if regime.recompute else forward


def _head(
    x: tf.Tensor, w: tf.Tensor, targets: tf.Tensor, dtype: tf.DType, embeddings: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """x [N, W], w [V, W], targets [N] -> mean cross-entropy, its gradients for x and, if asked for, for w.

    The gradient for the logits is taken at once, so that a slice of them lives no longer than its turn.
    """
    w, n = tf.cast(w, dtype), x.shape[0]
    slices = math.ceil(n / HEAD_ROWS)

    def part(i: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        start, end = n * i // slices, n * (i + 1) // slices
        xs = tf.cast(x[start:end], dtype)
        logits = tf.cast(tf.matmul(xs, w, transpose_b=True), tf.float32)  # [N/slices, V]
        losses, dlogits = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=targets[start:end])
        dlogits = tf.cast(dlogits / n, dtype)
        dx = tf.cast(tf.matmul(dlogits, w), tf.float32)
        d_wte = tf.cast(tf.matmul(dlogits, xs, transpose_a=True), tf.float32) if embeddings else tf.zeros([])
        return tf.reduce_sum(losses) / n, dx, d_wte

    def add(i: tf.Tensor, loss: tf.Tensor, dx: tf.Tensor, d_wte: tf.Tensor) -> tuple[tf.Tensor, ...]:
        more = part(i)
        return i + 1, loss + more[0], tf.concat([dx, more[1]], axis=0), d_wte + more[2]

    state = part(0)
    if slices > 1:  # a loop: of a sum written out, TensorFlow would compute all terms before it adds the first two
        shapes = (tf.TensorShape([]), state[0].shape, tf.TensorShape([None, x.shape[1]]), state[2].shape)
        state = tf.while_loop(lambda i, *_: i < slices, add, (1, *state), shapes, parallel_iterations=1)[1:]
    return state


def _is_block(name: str) -> bool:
    return name.startswith("h")


def _cast(w: Weights, dtype: tf.DType) -> Weights:
    """A block's weights, those of its products in `dtype`."""
    return {
        name: part if name.startswith("ln_") else tf.nest.map_structure(lambda t: tf.cast(t, dtype), part)
        for name, part in w.items()
    }


def _dropout(regime: Regime, seed: tf.Tensor) -> model.Dropout:
    """What drops activations, at most twice, each time with random numbers of its own."""
    if not regime.dropout:
        return model.no_dropout
    seeds = iter(tf.unstack(tf.random.split(seed, 2)))

    def drop(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.experimental.stateless_dropout(x, regime.dropout, seed=next(seeds))

    return drop
