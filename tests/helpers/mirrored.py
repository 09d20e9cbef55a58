"""Script: train on two devices of one machine, and on one device with a doubled batch, in a separate process.

The devices must be configured before TensorFlow's first operation. The working directory must contain text.txt. The
script trains the run `mirrored`, then prints the losses for each settings as JSON: [[two devices, one device], ...].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2.engine.tensorflow import as_tensors
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.training import distribution, run
from gpt2.training.settings.settings import TrainingSettings
from gpt2.training.trainer import Trainer

UPDATES, BATCH = 4, 2


def losses(directory: ModelDir, settings: TrainingSettings, strategy: tf.distribute.Strategy) -> Iterator[float]:
    """Yield the loss of each update of the same windows, for any strategy."""
    hparams, replicas = directory.hparams, strategy.num_replicas_in_sync
    trainer = Trainer(as_tensors(checkpoint.read_weights(directory.weights_path, hparams)), hparams, settings, strategy)
    shape = (replicas, settings.accumulate_gradients, 2 * BATCH // replicas, hparams.n_ctx + 1)
    tokens = np.random.default_rng(1).integers(hparams.n_vocab, size=shape).astype(np.int32)
    assert settings.learning_rate is not None
    for _ in range(UPDATES):
        yield trainer.update(tokens[..., :-1], tokens[..., 1:], settings.learning_rate, seed=1, stop=0)[0]


def main(model: str, settings_list: list[dict[str, Any]]) -> None:
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    distribution.create_strategy = lambda multi_gpu=True: two  # as on a machine with two GPUs
    common: dict[str, Any] = {
        "dataset": "text.txt",
        "model_name": model,
        "batch_size": BATCH,
        "learning_rate": 0.01,
        "seed": 1,
    }
    common |= {"run_name": "mirrored", "val_every": UPDATES, "sample_every": UPDATES, "sample_length": 3}
    for end in (UPDATES // 2, UPDATES):
        run.train(TrainingSettings(**common, stop_after=end))
    directory = open_model_dir(Path(model))
    both = (two, tf.distribute.get_strategy())
    results = []
    for values in settings_list:
        settings = TrainingSettings("text.txt", **values)
        results.append([list(losses(directory, settings, strategy)) for strategy in both])
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
