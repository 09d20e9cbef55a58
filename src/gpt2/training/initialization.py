"""Initial weights of a model that is trained from scratch."""

from __future__ import annotations

import numpy as np

from gpt2.hparams import HParams

WEIGHT_DEVIATION = 0.02  # standard deviations of the normal distributions, as in OpenAI's code
POSITION_DEVIATION = 0.01


def initial_weights(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    """Return random float32 weights by name, drawn as in OpenAI's code.

    The projections into the residual stream are scaled down by the square root of their number: Radford et al. 2019,
    section 2.3.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in hparams.weight_shapes().items():
        if name.endswith("/g"):
            weights[name] = np.ones(shape, np.float32)
        elif name.endswith("/b"):
            weights[name] = np.zeros(shape, np.float32)
        else:
            deviation = POSITION_DEVIATION if name.endswith("wpe") else WEIGHT_DEVIATION
            if name.endswith("c_proj/w"):
                deviation /= np.sqrt(2 * hparams.n_layer)
            weights[name] = (deviation * rng.standard_normal(shape)).astype(np.float32)
    return weights
