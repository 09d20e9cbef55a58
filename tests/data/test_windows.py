"""Which tokens a training update uses."""

import numpy as np
import pytest

from gpt2.data import windows
from gpt2.errors import GPT2Error

IDS = np.arange(1000, dtype=np.uint16)


def test_windows_depend_only_on_seed_and_step():
    first = windows.random_windows(IDS, 11, 6, seed=1, step=5)
    assert first.shape == (6, 11) and first.dtype == np.int32
    assert (np.diff(first, axis=1) == 1).all()
    assert (windows.random_windows(IDS, 11, 6, seed=1, step=5) == first).all()
    assert (windows.random_windows(IDS, 11, 6, seed=1, step=6) != first).any()
    assert (windows.random_windows(IDS, 11, 6, seed=2, step=5) != first).any()


def test_every_position_is_drawn_including_the_first_and_the_last():
    starts = {
        int(window[0]) for step in range(50) for window in windows.random_windows(IDS[:13], 11, 4, seed=1, step=step)
    }
    assert starts == {0, 1, 2}
    assert windows.random_windows(IDS[:11], 11, 1, seed=1, step=1).tolist() == [list(range(11))]


def test_too_little_text_is_rejected():
    windows.check_length(IDS, 1000, "it")
    with pytest.raises(GPT2Error, match="it has 1000 tokens, but one window needs 1001"):
        windows.check_length(IDS, 1001, "it")


def test_the_end_is_held_out():
    split = windows.hold_out(IDS, 0.1)
    assert (split.train == IDS[:900]).all() and (split.validation == IDS[900:]).all()


@pytest.mark.parametrize("batches, count", [(100, 99), (3, 12), (1, 4)])
def test_validation_windows_are_spread_evenly_and_predict_no_token_twice(batches, count):
    spread = np.concatenate(list(windows.spread_windows(IDS, 11, 4, batches)))
    assert spread.shape == (count, 11)
    targets = spread[:, 1:].ravel()
    assert len(set(targets.tolist())) == len(targets)
    gaps = np.diff(spread[:, 0])
    assert gaps.max() - gaps.min() <= 10


def test_noise_replaces_the_given_share():
    tokens = np.full((100, 100), 7, np.int32)
    noisy = windows.add_noise(tokens, 0.3, 1000, seed=1, step=1)
    assert (noisy != tokens).mean() == pytest.approx(0.3, abs=0.02)
    assert (windows.add_noise(tokens, 0.3, 1000, seed=1, step=1) == noisy).all()
    assert noisy.min() >= 0 and noisy.max() < 1000
