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

SLOT = "optimizer/{slot}/{name}"
DONE, SIGNALLED = 1, 2  # why an update is the last one, as bits: the run is complete, or a signal ends it
State = Mapping[str, tf.Tensor]


class Trainer:
    """Variables and their optimiser. All replicas start from what the first one was given: weights and state."""

    def __init__(
        self,
        weights: Weights,
        hparams: HParams,
        settings: TrainingSettings,
        strategy: tf.distribute.Strategy,
        step: int = 0,
        state: State | None = None,
    ) -> None:
        """step: updates made before; state: what the optimiser remembers of them, None if nothing."""
        self.hparams, self.settings, self.strategy, self.step = hparams, settings, strategy, step
        self.optimizer = optimizers.OPTIMIZERS[settings.optimizer]
        self.regime = ForwardOptions(
            tf.as_dtype(settings.precision), settings.dropout, settings.memory_saving_gradients
        )
        slots = slot_shapes(weights, settings)
        with strategy.scope():
            self._weights = tf.nest.map_structure(tf.Variable, weights)
            self._state = {n: tf.Variable(state[n] if state else tf.zeros(shape)) for n, shape in slots.items()}
        self._trained = {name: v for name, v in flatten(self._weights) if _is_trained(name, settings)}
        self._slots = {
            name: {slot: self._state[SLOT.format(slot=slot, name=name)] for slot in self.optimizer.slots(v.shape)}
            for name, v in self._trained.items()
        }
        self._compiled = tf.function(self._update_all, autograph=False)
        self._mean_loss = tf.function(forward.mean_loss, autograph=False)

    def _local(self, variable: tf.Variable) -> tf.Variable:
        """This machine's copy."""
        return self.strategy.experimental_local_results(variable)[0]

    @property
    def weights(self) -> Weights:
        """The variables themselves: what reads them reads their present values."""
        return tf.nest.map_structure(self._local, self._weights)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """What the optimiser remembers, by the names that it has in a checkpoint."""
        return {name: self._local(variable) for name, variable in self._state.items()}

    def update(self, inputs: np.ndarray, targets: np.ndarray, rate: float, seed: int, stop: int) -> tuple[float, int]:
        """inputs, targets [R, A, B, T] -> the loss before this update; why to stop after it.

        stop: 0 or, as bits, why this machine wants to; what is returned has the bits of all machines.
        """
        self.step += 1
        numbers = (
            tf.constant([seed & 0x7FFFFFFF, self.step], tf.int32),
            tf.constant(rate, tf.float32),
            tf.constant(self.step, tf.float32),
            tf.constant([float(stop & bit) for bit in (DONE, SIGNALLED)]),
        )
        batches = [self._distributed(x) for x in (inputs, targets)]
        loss, stops = self._compiled(*batches, *numbers)
        return float(loss), sum(bit for bit, wanted in zip((DONE, SIGNALLED), stops.numpy()) if wanted)

    def _distributed(self, x: np.ndarray) -> Any:
        if self.strategy.num_replicas_in_sync == 1:
            return tf.constant(x[0])
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(x[context.replica_id_in_sync_group])
        )

    def _update_all(self, *arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        results = self.strategy.run(self._update, args=arguments)
        return tuple(self.strategy.experimental_local_results(result)[0] for result in results)

    def _update(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, rate: tf.Tensor, step: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's part: inputs, targets [A, B, T], stop [2] -> the mean loss of all, the sum of their `stop`."""
        context = tf.distribute.get_replica_context()
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            seed = tf.random.fold_in(seed, context.replica_id_in_sync_group)
        if replicas == inputs.shape[0] == 1 and not self.settings.clip_norm:
            return self._update_block_by_block(inputs[0], targets[0], seed, rate, step), stop
        loss, gradients = self._accumulate(inputs, targets, seed)
        if replicas > 1:
            values = [loss, tf.identity(stop), *gradients]  # an argument has no device, and all_reduce asks for it
            loss, stop, *gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, values)
            loss, gradients = loss / replicas, [g / replicas for g in gradients]
        if self.settings.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.settings.clip_norm)
        self._apply(dict(zip(self._trained, gradients)), rate, step)
        return loss, stop

    def _update_block_by_block(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, rate: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """inputs, targets [B, T] -> the loss, where no gradient has to wait for others: few are in memory at once."""

        def spend(block: str, gradients: Weights) -> list[tf.Operation]:
            return self._apply(dict(flatten({block: gradients})), rate, step)

        loss, nested = self._loss_and_gradients(inputs, targets, seed, spend)
        self._apply(dict(flatten(nested)), rate, step)
        return loss

    def _apply(self, gradients: dict[str, tf.Tensor], rate: tf.Tensor, step: tf.Tensor) -> list[tf.Operation]:
        """Updates the variables so named; the operations that do."""
        operations = []
        for name, gradient in gradients.items():
            variable = self._trained[name]
            if self.settings.decay:
                optimizers.apply_weight_decay(variable, rate * self.settings.decay)
            operations.append(self.optimizer.update(variable, gradient, self._slots[name], rate, step))
        return operations

    def _accumulate(self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """inputs, targets [A, B, T] -> the means of A losses and gradients, the latter in the order of `_trained`."""
        count = inputs.shape[0]
        if count == 1:
            return self._gradients(inputs[0], targets[0], seed)

        def add(i: tf.Tensor, loss: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            more, gradients = self._gradients(inputs[i], targets[i], tf.random.fold_in(seed, i))
            return i + 1, loss + more, [a + b for a, b in zip(sums, gradients)]

        start = (tf.constant(0), tf.zeros([]), [tf.zeros(v.shape) for v in self._trained.values()])
        _, loss, sums = tf.while_loop(lambda i, *_: i < count, add, start, parallel_iterations=1)
        return loss / count, [g / count for g in sums]

    def _gradients(self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        loss, nested = self._loss_and_gradients(inputs, targets, seed)
        gradients = dict(flatten(nested))
        return loss, [gradients[name] for name in self._trained]

    def _loss_and_gradients(
        self, inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, spend: forward.Spend | None = None
    ) -> tuple[tf.Tensor, Weights]:
        embeddings = not self.settings.only_train_transformer_layers
        return forward.loss_and_gradients(
            self._weights, self.hparams, inputs, targets, self.regime, seed, embeddings, spend
        )

    def loss(self, tokens: np.ndarray) -> float:
        """tokens [B, T+1] -> mean cross-entropy in nats per token, without dropout, with this machine's weights."""
        return float(self._mean_loss(self.weights, self.hparams, tf.constant(tokens), self.regime.dtype))

    def check_weights(self) -> None:
        """Raises GPT2Error if an update has made a weight infinite or not a number."""
        for name, variable in flatten(self.weights):
            if not bool(tf.reduce_all(tf.math.is_finite(variable))):
                raise GPT2Error(f"after {self.step} updates {name} is not finite; {RECOVERY_ADVICE}")


def slot_shapes(weights: Weights, settings: TrainingSettings) -> dict[str, Sequence[int]]:
    """The shapes of what an optimiser remembers of these weights, by the names that it has in a checkpoint."""
    return {
        SLOT.format(slot=slot, name=name): shape
        for name, value in flatten(weights)
        if _is_trained(name, settings)
        for slot, shape in optimizers.OPTIMIZERS[settings.optimizer].slots(value.shape).items()
    }


def _is_trained(name: str, settings: TrainingSettings) -> bool:
    return not settings.only_train_transformer_layers or "/h" in name


RECOVERY_ADVICE = "the last checkpoint is as it was; go on from it with a lower learning_rate, or with clip_norm 1"
