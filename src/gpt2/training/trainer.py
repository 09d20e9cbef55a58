"""The weights in training and one update of them, compiled once, on one device or on many.

Shapes: R replicas, A micro-batches whose gradients are averaged, B batch, T time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2.errors import GPT2Error
from gpt2.formats.weights import flatten
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.training import forward, optimizers
from gpt2.training.block import ForwardOptions
from gpt2.training.settings.settings import TrainingSettings

SLOT_NAME = "optimizer/{slot}/{name}"  # of a tensor of the optimizer's state in a checkpoint
# Reasons to stop after an update, as bits: the run is complete, or a signal ends it.
DONE = 1
SIGNALLED = 2
STOP_REASONS = (DONE, SIGNALLED)
RECOVERY_ADVICE = "the last checkpoint is unchanged; resume from it with a lower learning_rate, or with clip_norm 1"
OptimizerState = Mapping[str, tf.Tensor]


class Trainer:
    """The variables of a model and its optimizer. All replicas start from the first one's weights and state."""

    def __init__(
        self,
        weights: Weights,
        hparams: HParams,
        settings: TrainingSettings,
        strategy: tf.distribute.Strategy,
        step: int = 0,
        state: OptimizerState | None = None,
    ) -> None:
        """Create the variables on all devices of the strategy.

        Args:
            weights: Nested initial weights.
            hparams: The model's hyperparameters.
            settings: The run's settings.
            strategy: TensorFlow's strategy for the devices.
            step: Number of updates made before.
            state: The optimizer's state by name; None for a new optimizer.
        """
        self.hparams = hparams
        self.settings = settings
        self.strategy = strategy
        self.step = step
        self.optimizer = optimizers.OPTIMIZERS[settings.optimizer]
        self.options = ForwardOptions(
            tf.as_dtype(settings.precision), settings.dropout, settings.memory_saving_gradients
        )
        shapes = state_shapes(weights, settings)
        with strategy.scope():
            self._weights = tf.nest.map_structure(tf.Variable, weights)
            self._state = {n: tf.Variable(state[n] if state else tf.zeros(shape)) for n, shape in shapes.items()}
        self._trained = {name: v for name, v in flatten(self._weights) if _is_trained(name, settings)}
        self._slots = {
            name: {slot: self._state[SLOT_NAME.format(slot=slot, name=name)] for slot in self.optimizer.slots(v.shape)}
            for name, v in self._trained.items()
        }
        self._compiled_update = tf.function(self._update_replicas, autograph=False)
        self._compiled_loss = tf.function(forward.mean_loss, autograph=False)

    def _local(self, variable: tf.Variable) -> tf.Variable:
        """Return this machine's copy of a variable."""
        return self.strategy.experimental_local_results(variable)[0]

    @property
    def weights(self) -> Weights:
        """The nested variables, which always hold the present weights."""
        return tf.nest.map_structure(self._local, self._weights)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """The optimizer's state, by its names in a checkpoint."""
        return {name: self._local(variable) for name, variable in self._state.items()}

    def update(self, inputs: np.ndarray, targets: np.ndarray, rate: float, seed: int, stop: int) -> tuple[float, int]:
        """Make one update of the weights.

        Args:
            inputs: Token ids [R, A, B, T].
            targets: The token after each input [R, A, B, T].
            rate: The learning rate.
            seed: The run's seed, for the dropout.
            stop: This machine's reasons to stop after the update: a sum of `STOP_REASONS`, or 0.

        Returns:
            The mean loss of all machines before the update, and the stop reasons of all machines.
        """
        self.step += 1
        numbers = (
            tf.constant([seed & 0x7FFFFFFF, self.step], tf.int32),
            tf.constant(rate, tf.float32),
            tf.constant(self.step, tf.float32),
            tf.constant([float(stop & reason) for reason in STOP_REASONS]),
        )
        loss, stops = self._compiled_update(self._distribute(inputs), self._distribute(targets), *numbers)
        return float(loss), sum(reason for reason, is_set in zip(STOP_REASONS, stops.numpy()) if is_set)

    def _distribute(self, x: np.ndarray) -> Any:
        """Return x [R, ...] as a tensor for each replica."""
        if self.strategy.num_replicas_in_sync == 1:
            return tf.constant(x[0])
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(x[context.replica_id_in_sync_group])
        )

    def _update_replicas(self, *arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        results = self.strategy.run(self._update_replica, args=arguments)
        return tuple(self.strategy.experimental_local_results(result)[0] for result in results)

    def _update_replica(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, rate: tf.Tensor, step: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Make one replica's part of an update.

        Args:
            inputs: Token ids [A, B, T].
            targets: Token ids [A, B, T].
            seed: The run's seed and the step [2].
            rate: The learning rate, a scalar.
            step: The number of the update from 1, a scalar.
            stop: The replica's stop reasons [2], nonzero if set.

        Returns:
            The mean loss of all replicas, and the sum of their `stop`.
        """
        context = tf.distribute.get_replica_context()
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            seed = tf.random.fold_in(seed, context.replica_id_in_sync_group)
        if replicas == inputs.shape[0] == 1 and not self.settings.clip_norm:
            return self._update_block_by_block(inputs[0], targets[0], seed, rate, step), stop
        loss, gradients = self._mean_gradients(inputs, targets, seed)
        if replicas > 1:
            values = [loss, tf.identity(stop), *gradients]  # arguments have no device, which all_reduce needs
            loss, stop, *gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, values)
            loss, gradients = loss / replicas, [g / replicas for g in gradients]
        if self.settings.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.settings.clip_norm)
        self._apply_gradients(dict(zip(self._trained, gradients)), rate, step)
        return loss, stop

    def _update_block_by_block(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, rate: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """Make an update in which each block's gradients are applied at once, so that few are in memory.

        This works only if gradients are neither averaged nor clipped.

        Returns:
            The loss of inputs and targets [B, T].
        """

        def apply_block_gradients(block: str, gradients: Weights) -> list[tf.Operation]:
            return self._apply_gradients(dict(flatten({block: gradients})), rate, step)

        loss, nested = self._loss_and_gradients(inputs, targets, seed, apply_block_gradients)
        self._apply_gradients(dict(flatten(nested)), rate, step)
        return loss

    def _apply_gradients(self, gradients: dict[str, tf.Tensor], rate: tf.Tensor, step: tf.Tensor) -> list[tf.Operation]:
        """Update the named variables and return the operations that do so."""
        operations = []
        weight_decay = self.settings.effective_weight_decay
        for name, gradient in gradients.items():
            variable = self._trained[name]
            if weight_decay:
                optimizers.apply_weight_decay(variable, rate * weight_decay)
            operations.append(self.optimizer.update(variable, gradient, self._slots[name], rate, step))
        return operations

    def _mean_gradients(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the means of the losses and gradients of A micro-batches [A, B, T], in the order of `_trained`."""
        count = inputs.shape[0]
        if count == 1:
            return self._ordered_gradients(inputs[0], targets[0], seed)

        def add(i: tf.Tensor, loss: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            batch_loss, gradients = self._ordered_gradients(inputs[i], targets[i], tf.random.fold_in(seed, i))
            return i + 1, loss + batch_loss, [a + b for a, b in zip(sums, gradients)]

        start = (tf.constant(0), tf.zeros([]), [tf.zeros(v.shape) for v in self._trained.values()])
        _, loss, sums = tf.while_loop(lambda i, *_: i < count, add, start, parallel_iterations=1)
        return loss / count, [g / count for g in sums]

    def _ordered_gradients(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the loss of inputs and targets [B, T] and its gradients in the order of `_trained`."""
        loss, nested = self._loss_and_gradients(inputs, targets, seed)
        gradients = dict(flatten(nested))
        return loss, [gradients[name] for name in self._trained]

    def _loss_and_gradients(
        self,
        inputs: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        consume_gradients: forward.GradientConsumer | None = None,
    ) -> tuple[tf.Tensor, Weights]:
        train_embeddings = not self.settings.only_train_transformer_layers
        return forward.loss_and_gradients(
            self._weights, self.hparams, inputs, targets, self.options, seed, train_embeddings, consume_gradients
        )

    def loss(self, tokens: np.ndarray) -> float:
        """Return the mean cross-entropy of tokens [B, T+1] in nats per token.

        Dropout is off, and the weights are this machine's.
        """
        return float(self._compiled_loss(self.weights, self.hparams, tf.constant(tokens), self.options.dtype))

    def check_weights(self) -> None:
        """Raise GPT2Error if an update has made a weight infinite or NaN."""
        for name, variable in flatten(self.weights):
            if not bool(tf.reduce_all(tf.math.is_finite(variable))):
                raise GPT2Error(f"after {self.step} updates {name} is not finite; {RECOVERY_ADVICE}")


def state_shapes(weights: Weights, settings: TrainingSettings) -> dict[str, Sequence[int]]:
    """Return the shapes of the optimizer's state for these weights, by its names in a checkpoint."""
    return {
        SLOT_NAME.format(slot=slot, name=name): shape
        for name, value in flatten(weights)
        if _is_trained(name, settings)
        for slot, shape in optimizers.OPTIMIZERS[settings.optimizer].slots(value.shape).items()
    }


def _is_trained(name: str, settings: TrainingSettings) -> bool:
    return not settings.only_train_transformer_layers or "/h" in name
