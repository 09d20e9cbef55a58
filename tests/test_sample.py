"""Each filter on distributions typed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import sample
from gpt2.errors import UsageError
from gpt2.request import Sampling

PROBABILITIES = [0.15, 0.5, 0.05, 0.3]
LOGITS = np.log([PROBABILITIES]).astype(np.float32)


def kept(logits):
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in logits.numpy()]


@pytest.mark.parametrize(
    "k, ids", [(0, [0, 1, 2, 3]), (1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (60000, [0, 1, 2, 3])]
)
def test_top_k(k, ids):
    assert kept(sample.keep_top_k(tf.constant(LOGITS), tf.constant([k]))) == [ids]


def test_top_k_keeps_exactly_k_of_equal_logits_lowest_id_first():
    assert kept(sample.keep_top_k(tf.zeros([1, 5]), tf.constant([2]))) == [[0, 1]]
    assert kept(sample.keep_top_k(tf.constant([[0.0, 1, 0, 1, 1]]), tf.constant([2]))) == [[1, 3]]


@pytest.mark.parametrize(
    "p, ids",
    [
        (0.0, [0, 1, 2, 3]),
        (0.3, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),  # the token that crosses p is in; OpenAI's code would drop it
        (0.81, [0, 1, 3]),
        (0.96, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p(p, ids):
    assert kept(sample.keep_top_p(tf.constant(LOGITS), tf.constant([p]))) == [ids]


def test_top_p_takes_the_lower_id_of_equal_ones():
    assert kept(sample.keep_top_p(tf.zeros([1, 4]), tf.constant([0.4]))) == [[0, 1]]


def test_rows_have_their_own_settings():
    logits = tf.constant(np.repeat(LOGITS, 3, axis=0))
    assert kept(sample.keep_top_k(logits, tf.constant([0, 1, 3]))) == [[0, 1, 2, 3], [1], [0, 1, 3]]
    assert kept(sample.keep_top_p(logits, tf.constant([0.6, 1.0, 0.2]))) == [[1, 3], [0, 1, 2, 3], [1]]


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_a_nucleus_larger_than_the_window_is_the_fully_sorted_one(p):
    logits = tf.constant(np.random.default_rng(0).normal(size=(4, 500)), tf.float32)
    top_p = tf.fill([4], p)
    assert kept(sample.keep_top_p(logits, top_p, window=8)) == kept(sample.keep_top_p(logits, top_p, window=500))


def test_top_p_counts_the_mass_that_top_k_left():
    logits = sample.keep_top_k(tf.constant(LOGITS), tf.constant([2]))  # .5 and .3 become .625 and .375
    assert kept(sample.keep_top_p(logits, tf.constant([0.6]))) == [[1]]
    assert kept(sample.keep_top_p(logits, tf.constant([0.7]))) == [[1, 3]]


def test_penalty_divides_positive_and_multiplies_negative_logits():
    logits = tf.constant([[2.0, -2.0, 3.0]])
    seen = tf.constant([[True, True, False]])
    np.testing.assert_allclose(sample.penalize(logits, seen, tf.constant([2.0])), [[1.0, -4.0, 3.0]])
    np.testing.assert_allclose(sample.penalize(logits, seen, tf.constant([1.0])), logits)


def test_the_choice_is_the_largest_sum_of_logit_and_gumbel_number():
    uniform = np.array([[0.5, 0.9, 0.01, 0.6]], np.float32)
    expected = np.argmax(LOGITS - np.log(-np.log(1 - uniform)))
    assert sample.choose(tf.constant(LOGITS), tf.constant(uniform)).numpy().tolist() == [expected]


def test_the_least_and_the_largest_number_are_no_trouble():
    """With the words 0 and 2**32 - 1 in turn, as the generator could give them."""
    numbers = sample.RandomNumbers(seed=0, sample=0)
    numbers.bits = SimpleNamespace(random_raw=lambda n: np.full(n, 0xFFFF_FFFF_0000_0000, np.uint64))
    uniform = numbers.next(4)
    assert uniform.tolist() == [2.0**-33, 1 - 2.0**-24, 2.0**-33, 1 - 2.0**-24]
    assert sample.choose(tf.constant(LOGITS), uniform[None]).numpy().tolist() == [0]
    only_second = sample.keep_top_k(tf.constant(LOGITS), tf.constant([1]))
    assert sample.choose(only_second, uniform[None]).numpy().tolist() == [1]


def test_a_dropped_token_is_never_chosen():
    logits = tf.constant([[-np.inf, 0.0, -np.inf, -50.0]], tf.float32)
    numbers = sample.RandomNumbers(seed=0, sample=0)
    for _ in range(100):
        assert int(sample.choose(logits, numbers.next(4)[None])[0]) == 1
    assert int(sample.choose(logits, tf.constant([[2.0**-33, 1 - 2.0**-24, 2.0**-33, 2.0**-33]]))[0]) == 1


def test_frequencies_are_the_probabilities():
    """20,000 draws: a deviation of 0.015 is more than four standard errors."""
    numbers = sample.RandomNumbers(seed=0, sample=0)
    uniform = np.stack([numbers.next(4) for _ in range(20_000)])
    ids = sample.choose(tf.constant(np.repeat(LOGITS, 20_000, axis=0)), uniform).numpy()
    np.testing.assert_allclose(np.bincount(ids, minlength=4) / 20_000, PROBABILITIES, atol=0.015)


def test_the_batch_size_rounds_away_no_choice():
    """Errors like those of another batch size's products, a millionth of a logit: 2,000 draws of 50,000 ids agree."""
    rng = np.random.default_rng(0)
    numbers = sample.RandomNumbers(seed=1, sample=0)
    for _ in range(20):
        logits = rng.normal(size=(1, 50_000)).astype(np.float32)
        noisy = logits + rng.normal(size=(100, 50_000)).astype(np.float32) * np.float32(1e-6)
        uniform = numbers.next(50_000)[None]
        assert set(sample.choose(noisy, uniform).numpy()) == set(sample.choose(logits, uniform).numpy())


def next_ids(favoured, *rows, logits=LOGITS, seen=None):
    """The ids chosen where chance favours one id, by a Gumbel number about 4.6 above those of the others."""
    logits = tf.constant(np.repeat(logits, len(rows), axis=0))
    uniform = np.full(logits.shape, 0.5, np.float32)
    uniform[:, favoured] = 0.007
    return sample.next_tokens(logits, sample.stack(rows), uniform, seen).numpy().tolist()


def test_temperature_zero_is_greedy_in_any_company():
    assert next_ids(3, Sampling(temperature=0)) == [1]
    assert next_ids(3, Sampling(temperature=0), Sampling(), Sampling(temperature=0, top_k=3)) == [1, 3, 1]
    assert next_ids(3, Sampling(temperature=0), logits=np.zeros([1, 4], np.float32)) == [0]


@pytest.mark.parametrize("temperature", [1e-50, 1e-38, 1e-30, 1e-6])
def test_a_very_small_temperature_is_greedy_too(temperature):
    logits = np.array([[30.0, 31, -200, 30.9]], np.float32)
    for filters in ({}, {"top_k": 3}, {"top_p": 0.9}):
        assert next_ids(3, Sampling(temperature=temperature, **filters), logits=logits) == [1]


def test_a_very_large_temperature_leaves_it_to_chance():
    assert [next_ids(i, Sampling(temperature=1e38)) for i in range(4)] == [[0], [1], [2], [3]]


def test_top_k_1_is_greedy():
    assert [next_ids(i, Sampling(top_k=1)) for i in range(4)] == [[1]] * 4


def test_temperature_is_applied_before_the_filters():
    # At temperature 4 the likeliest two hold 0.6 of the mass instead of 0.8, so a nucleus of 0.7 needs a third.
    assert next_ids(0, Sampling(temperature=1, top_p=0.7)) == [1]
    assert next_ids(0, Sampling(temperature=4, top_p=0.7)) == [0]


def test_penalty_applies_to_greedy_choice_too():
    seen = tf.constant([[False, True, False, False]])
    assert next_ids(0, Sampling(temperature=0, repetition_penalty=5.0), seen=seen) == [3]


def test_compiled_choice_is_the_eager_one():
    rng = np.random.default_rng(3)
    rows = [Sampling(t, k, p) for t in (0, 0.7, 1.5) for k in (0, 1, 40) for p in (0.5, 1.0)]
    compiled = tf.function(sample.next_tokens)
    for _ in range(5):
        logits = tf.constant(rng.normal(size=(len(rows), 300)) * 3, tf.float32)
        uniform = tf.constant(rng.random((len(rows), 300)), tf.float32)
        eager = sample.next_tokens(logits, sample.stack(rows), uniform).numpy().tolist()
        assert compiled(logits, sample.stack(rows), uniform).numpy().tolist() == eager


def test_a_setting_that_no_row_uses_is_left_out():
    assert sample.stack([Sampling(temperature=0), Sampling(temperature=0)]) == (None, None, None, None)
    stacked = sample.stack([Sampling(temperature=0, top_k=10**30), Sampling(repetition_penalty=2)])
    assert stacked.top_p is None
    assert [column.numpy().tolist() for column in stacked if column is not None] == [[0, 1], [2**31 - 1, 0], [1, 2]]


def test_random_numbers_belong_to_seed_and_sample():
    def draw(seed, number):
        stream = sample.RandomNumbers(seed, number)
        return np.concatenate([stream.next(5), stream.next(5)]).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(seed, number)) for seed in (0, 1, 2**40) for number in (0, 1)}) == 6
    # Typed in, so that a release of NumPy that changed them would be noticed.
    np.testing.assert_allclose(draw(0, 0)[:5], FIRST_NUMBERS, rtol=1e-6)


FIRST_NUMBERS = [0.13562296330928802, 0.014067035168409348, 0.937732458114624, 0.2577672600746155, 0.3864486813545227]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"temperature": -1.0}, "temperature must be 0 .* not -1.0"),
        ({"temperature": float("nan")}, "not nan"),
        ({"temperature": float("inf")}, "not inf"),
        ({"top_k": -1}, "top_k must be 0 .* not -1"),
        ({"top_p": 1.5}, "top_p must be between 0 and 1 .* not 1.5"),
        ({"top_p": float("nan")}, "not nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0 .* not 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**wrong)
