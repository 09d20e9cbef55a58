"""The loss of a batch and its gradients: `gpt2.model` with dropout, bfloat16 products and little memory.

Shapes: B batch, T time, E embedding, W width of wte (E except in some variants), V vocabulary, N = B*T.
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
from gpt2.training.update_slices import LOGIT_ROWS

# Weights before and after the blocks; `in_proj` and `out_proj` exist only if W is not E.
ENTERING = ("in_proj",)
LEAVING = ("ln_f", "out_proj")
# Takes dy; returns the gradients of x and of the weights.
Backward = Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, Any]]]
# Takes a block's name and gradients; returns the operations that use the gradients.
GradientConsumer = Callable[[str, Weights], list[tf.Operation]]


def loss_and_gradients(
    weights: Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    options: ForwardOptions,
    seed: tf.Tensor,
    train_embeddings: bool = True,
    consume_gradients: GradientConsumer | None = None,
) -> tuple[tf.Tensor, Weights]:
    """Return the mean cross-entropy in nats per token, and its gradients, nested like the weights.

    Args:
        weights: Nested variables or tensors.
        hparams: The model's hyperparameters.
        inputs: Token ids [B, T], int32.
        targets: The token after each input [B, T], int32.
        options: Options of the forward pass.
        seed: Seed [2] of the dropout, int32.
        train_embeddings: Whether to train wte, wpe and ln_f as well, or only the blocks.
        consume_gradients: Called with a block's gradients as soon as they are computed. They are then not returned,
            so that only one block's gradients are in memory.
    """
    weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
    embedded = embed(weights, inputs)
    x = tf.reshape(drop(embedded, options, seed, 0), [-1, hparams.token_size])
    x, entering = _with_tape(model.project_in, weights, ENTERING, x)
    x, blocks = _run_blocks(weights, hparams, options, x, seed, inputs.shape[0], consume_gradients)
    x, leaving = _with_tape(lambda w, x: model.project_out(w, hparams, x), weights, LEAVING, x)
    loss, dx, d_head = _head_gradients(
        x, model.output_projection(weights), tf.reshape(targets, [-1]), options.dtype, train_embeddings
    )
    gradients: dict[str, Any] = {}
    for backward in (leaving, blocks, entering):
        dx, part_gradients = backward(dx)
        gradients.update(part_gradients)
    if not train_embeddings:
        return loss, {name: value for name, value in gradients.items() if name not in (*ENTERING, *LEAVING)}
    d_wte = d_head
    if "lm_head" in weights:
        gradients["lm_head"] = d_head
        d_wte = tf.zeros_like(weights["wte"])
    d_embedded = drop(tf.reshape(dx, tf.shape(embedded)), options, seed, 0)
    gradients["wte"], gradients["wpe"] = _embedding_gradients(d_wte, inputs, d_embedded, hparams.n_ctx)
    return loss, gradients


def mean_loss(weights: Weights, hparams: HParams, tokens: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Return the mean cross-entropy in nats per token, without dropout and gradients.

    Args:
        weights: The model's weights.
        hparams: The model's hyperparameters.
        tokens: Windows of token ids [B, T+1].
        dtype: The type of the matrix products.

    Returns:
        The loss, a float32 scalar.
    """
    inputs = tokens[:, :-1]
    targets = tf.reshape(tokens[:, 1:], [-1])
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
    """Return the sums of the token and position embeddings [B, T, W] of inputs [B, T]."""
    return tf.gather(weights["wte"], inputs) + weights["wpe"][: tf.shape(inputs)[1]]


def _embedding_gradients(
    d_wte: tf.Tensor, inputs: tf.Tensor, d_embedded: tf.Tensor, n_ctx: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the gradients of wte [V, W] and wpe [n_ctx, W].

    Args:
        d_wte: The gradient of wte as the output layer's weights [V, W].
        inputs: Token ids [B, T].
        d_embedded: The gradient of the embeddings [B, T, W].
        n_ctx: Number of positions.
    """
    d_wte = tf.tensor_scatter_nd_add(d_wte, inputs[:, :, None], d_embedded)
    unused_positions = n_ctx - tf.shape(inputs)[1]
    return d_wte, tf.pad(tf.reduce_sum(d_embedded, axis=0), [[0, unused_positions], [0, 0]])


def _with_tape(
    function: Callable[[Weights, tf.Tensor], tf.Tensor], weights: Weights, names: Sequence[str], x: tf.Tensor
) -> tuple[tf.Tensor, Backward]:
    """Return function(weights, x), and the backward pass of automatic differentiation for x and the named weights."""
    part = {name: weights[name] for name in names if name in weights}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, *tf.nest.flatten(part)])
        y = function(part, x)
    return y, lambda dy: tape.gradient(y, (x, part), output_gradients=dy)


def _compile_block(block: Block, options: ForwardOptions) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the forward and the backward pass of a block, each traced once for all layers."""

    def run_forward(x: tf.Tensor, w: Weights, *constants: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | BlockActivations]:
        y, activations = block.forward(x, _cast(w, options.dtype), *constants)
        return y, x if options.recompute else activations

    def run_backward(dy: tf.Tensor, stored: Any, w: Weights, *constants: tf.Tensor) -> tuple[tf.Tensor, Weights]:
        w = _cast(w, options.dtype)
        activations = block.forward(stored, w, *constants)[1] if options.recompute else stored
        return block.backward(dy, activations, w, *constants)

    # If inlined, TensorFlow would merge the second computation with the first one and store its results.
    attributes = {"_noinline": True}
    return (
        tf.function(run_forward, autograph=False, experimental_attributes=attributes),
        tf.function(run_backward, autograph=False, experimental_attributes=attributes),
    )


def _run_blocks(
    weights: Weights,
    hparams: HParams,
    options: ForwardOptions,
    x: tf.Tensor,
    seed: tf.Tensor,
    batch_size: int,
    consume_gradients: GradientConsumer | None,
) -> tuple[tf.Tensor, Backward]:
    """Return the output of all blocks for x [N, E], and their backward pass."""
    forward, backward = _compile_block(Block(hparams, options, batch_size), options)
    layers = []
    for layer in range(hparams.n_layer):
        constants = tf.constant(model.score_scale(hparams, layer)), tf.random.fold_in(seed, layer)
        x, stored = forward(x, weights[f"h{layer}"], *constants)
        layers.append((f"h{layer}", stored, constants))

    def run_all_backward(dy: tf.Tensor) -> tuple[tf.Tensor, dict[str, Any]]:
        gradients = {}
        for name, stored, constants in reversed(layers):
            dy, gradients[name] = backward(dy, stored, weights[name], *constants)
            if consume_gradients is not None:  # before the next layer, so that only one layer's are in memory
                with tf.control_dependencies(consume_gradients(name, gradients.pop(name))):
                    dy = tf.identity(dy)
        return dy, gradients

    return x, run_all_backward


def _head_gradients(
    x: tf.Tensor, w: tf.Tensor, targets: tf.Tensor, dtype: tf.DType, train_embeddings: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the mean cross-entropy and its gradients of x and w; an untrained w has the gradient 0.

    The gradient of a slice of logits is computed together with the slice, so that only one slice is in memory.

    Args:
        x: Input of the output layer [N, W].
        w: The output layer's weights [V, W].
        targets: Token ids [N].
        dtype: Type of the matrix products.
        train_embeddings: Whether w is trained.

    Returns:
        The loss, the gradient of x [N, W], and the gradient of w [V, W], or a scalar 0 if w is not trained.
    """
    w = tf.cast(w, dtype)
    n = x.shape[0]
    n_slices = math.ceil(n / LOGIT_ROWS)

    def compute_slice(i: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        start, end = n * i // n_slices, n * (i + 1) // n_slices
        xs = tf.cast(x[start:end], dtype)
        logits = tf.cast(tf.matmul(xs, w, transpose_b=True), tf.float32)  # [N/n_slices, V]
        losses, d_logits = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=targets[start:end])
        d_logits = tf.cast(d_logits / n, dtype)
        dx = tf.cast(tf.matmul(d_logits, w), tf.float32)
        dw = tf.cast(tf.matmul(d_logits, xs, transpose_a=True), tf.float32) if train_embeddings else tf.zeros([])
        return tf.reduce_sum(losses) / n, dx, dw

    def add_slice(i: tf.Tensor, loss: tf.Tensor, dx: tf.Tensor, dw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        slice_loss, slice_dx, slice_dw = compute_slice(i)
        return i + 1, loss + slice_loss, tf.concat([dx, slice_dx], axis=0), dw + slice_dw

    state = compute_slice(0)
    if n_slices > 1:  # in an unrolled sum, TensorFlow would compute all terms before it adds the first two
        shapes = (tf.TensorShape([]), state[0].shape, tf.TensorShape([None, x.shape[1]]), state[2].shape)
        state = tf.while_loop(lambda i, *_: i < n_slices, add_slice, (1, *state), shapes, parallel_iterations=1)[1:]
    return state


def _cast(w: Weights, dtype: tf.DType) -> Weights:
    """Return a block's weights, with its matrices converted to `dtype`."""
    return {
        name: part if name.startswith("ln_") else tf.nest.map_structure(lambda t: tf.cast(t, dtype), part)
        for name, part in w.items()
    }
