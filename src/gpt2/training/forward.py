"""The loss of a batch and its gradients: `gpt2.model` with dropout, bfloat16 products and little memory.

Shapes: B batch, T time, E embedding, W width of wte (E, but for some variants), V vocabulary, N = B*T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.training.block import Block, BlockActivations, ForwardOptions, drop
from gpt2.training.settings.settings import HEAD_ROWS

ENTERING, LEAVING = ("in_proj",), ("ln_f", "out_proj")  # weights before the blocks and after them, where there are any
Backward = Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, Any]]]  # dy -> the gradients for x and for weights

Spend = Callable[[str, Weights], list[tf.Operation]]  # a block's name, its gradients -> what has to be done with them


def loss_and_gradients(
    weights: Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    regime: ForwardOptions,
    seed: tf.Tensor,
    embeddings: bool = True,
    spend: Spend | None = None,
) -> tuple[tf.Tensor, Weights]:
    """inputs, targets [B, T] int32, seed [2] int32 -> mean cross-entropy in nats per token, gradients nested as the
    weights.

    embeddings: whether wte, wpe and ln_f are trained too, or the blocks alone.
    spend: takes the gradients of a block as soon as they are there, which are then not among those that are returned.
    """
    weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
    embedded = embed(weights, inputs)
    x = tf.reshape(drop(embedded, regime, seed, 0), [-1, hparams.token_size])
    x, entering = _taped(model.project_in, weights, ENTERING, x)
    x, through_blocks = _blocks(weights, hparams, regime, x, seed, inputs.shape[0], spend)
    x, leaving = _taped(lambda w, x: model.project_out(w, hparams, x), weights, LEAVING, x)
    loss, dx, d_head = _head(x, model.output_projection(weights), tf.reshape(targets, [-1]), regime.dtype, embeddings)
    gradients: dict[str, Any] = {}
    for backward in (leaving, through_blocks, entering):
        dx, more = backward(dx)
        gradients.update(more)
    if not embeddings:
        return loss, {name: value for name, value in gradients.items() if name not in (*ENTERING, *LEAVING)}
    if "lm_head" in weights:
        gradients["lm_head"], d_head = d_head, tf.zeros_like(weights["wte"])
    d_embedded = drop(tf.reshape(dx, tf.shape(embedded)), regime, seed, 0)
    gradients["wte"] = tf.tensor_scatter_nd_add(d_head, inputs[:, :, None], d_embedded)
    unused = hparams.n_ctx - tf.shape(inputs)[1]
    gradients["wpe"] = tf.pad(tf.reduce_sum(d_embedded, axis=0), [[0, unused], [0, 0]])
    return loss, gradients


def mean_loss(weights: Weights, hparams: HParams, tokens: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """tokens [B, T+1] -> mean cross-entropy in nats per token, without dropout and gradients."""
    inputs, targets = tokens[:, :-1], tf.reshape(tokens[:, 1:], [-1])
    x = model.project_in(weights, tf.reshape(embed(weights, inputs), [-1, hparams.token_size]))
    mask = model.causal_mask(tf.shape(inputs)[1])
    for layer in range(hparams.n_layer):
        w = _cast(weights[f"h{layer}"], dtype)
        x = model.block(x, w, hparams, model.score_scale(hparams, layer), tf.shape(tokens)[0], mask)[0]
    x = tf.cast(model.project_out(weights, hparams, x), dtype)
    projection = tf.cast(model.output_projection(weights), dtype)  # [V, W]
    logits = tf.cast(tf.matmul(x, projection, transpose_b=True), tf.float32)  # [N, V]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))


def embed(weights: Weights, inputs: tf.Tensor) -> tf.Tensor:
    """inputs [B, T] -> [B, T, W]"""
    return tf.gather(weights["wte"], inputs) + weights["wpe"][: tf.shape(inputs)[1]]


def _taped(
    function: Callable[[Weights, tf.Tensor], tf.Tensor], weights: Weights, names: Sequence[str], x: tf.Tensor
) -> tuple[tf.Tensor, Backward]:
    """function(weights, x), and its gradients for x and for the weights so named, by automatic differentiation."""
    part = {name: weights[name] for name in names if name in weights}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, *tf.nest.flatten(part)])
        y = function(part, x)
    return y, lambda dy: tape.gradient(y, (x, part), output_gradients=dy)


def _blocks(
    weights: Weights,
    hparams: HParams,
    regime: ForwardOptions,
    x: tf.Tensor,
    seed: tf.Tensor,
    batch: int,
    spend: Spend | None,
) -> tuple[tf.Tensor, Backward]:
    """x [N, E] through all blocks, and the way back; each direction is traced once for all of them."""
    block = Block(hparams, regime, batch)

    def run(x: tf.Tensor, w: Weights, *how: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | BlockActivations]:
        y, kept = block.forward(x, _cast(w, regime.dtype), *how)
        return y, x if regime.recompute else kept

    def run_back(dy: tf.Tensor, kept: Any, w: Weights, *how: tf.Tensor) -> tuple[tf.Tensor, Weights]:
        w = _cast(w, regime.dtype)
        return block.backward(dy, block.forward(kept, w, *how)[1] if regime.recompute else kept, w, *how)

    # Inlined, what is computed a second time would be recognised as what was there already, and that would be kept.
    apart = {"_noinline": True}
    forward = tf.function(run, autograph=False, experimental_attributes=apart)
    back = tf.function(run_back, autograph=False, experimental_attributes=apart)
    passed = []
    for layer in range(hparams.n_layer):
        how = tf.constant(model.score_scale(hparams, layer)), tf.random.fold_in(seed, layer)
        x, kept = forward(x, weights[f"h{layer}"], *how)
        passed.append((f"h{layer}", kept, how))

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, dict[str, Any]]:
        gradients = {}
        for name, kept, how in reversed(passed):
            dy, gradients[name] = back(dy, kept, weights[name], *how)
            if spend is not None:  # before the next layer, or the gradients of many would be in memory at once
                with tf.control_dependencies(spend(name, gradients.pop(name))):
                    dy = tf.identity(dy)
        return dy, gradients

    return x, backward


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


def _cast(w: Weights, dtype: tf.DType) -> Weights:
    """A block's weights, those of its products in `dtype`."""
    return {
        name: part if name.startswith("ln_") else tf.nest.map_structure(lambda t: tf.cast(t, dtype), part)
        for name, part in w.items()
    }
