"""Each filter on small distributions with results computed by hand."""

import doctest
from types import SimpleNamespace

import numpy as np
import pytest

from gpt2 import sample
from gpt2.errors import UsageError
from gpt2.request import Sampling

PROBABILITIES = [0.15, 0.5, 0.05, 0.3]
LOGITS = np.log(PROBABILITIES).astype(np.float32)


def kept_ids(indices: np.ndarray | None) -> list[int]:
    """Return what a filter kept of four ids; None stands for all."""
    return [0, 1, 2, 3] if indices is None else indices.tolist()


def words(*numbers: float) -> np.ndarray:
    """Return the random words for these uniform numbers."""
    return np.array([int(number * 2**32) for number in numbers], np.uint32)


@pytest.mark.parametrize(
    "k, ids", [(0, [0, 1, 2, 3]), (1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (60000, [0, 1, 2, 3])]
)
def test_top_k(k, ids):
    assert kept_ids(sample.top_k(LOGITS, k)) == ids


def test_top_k_keeps_exactly_k_of_equal_logits_lowest_id_first():
    assert kept_ids(sample.top_k(np.zeros(5), 2)) == [0, 1]
    assert kept_ids(sample.top_k(np.array([0.0, 1, 0, 1, 1]), 2)) == [1, 3]


@pytest.mark.parametrize(
    "p, ids",
    [
        (0.0, [0, 1, 2, 3]),
        (0.3, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),  # the token that crosses p is kept; OpenAI's code drops it
        (0.81, [0, 1, 3]),
        (0.96, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p(p, ids):
    assert kept_ids(sample.top_p(LOGITS, p)) == ids


def test_top_p_takes_the_lower_id_of_equal_ones():
    assert kept_ids(sample.top_p(np.zeros(4), 0.4)) == [0, 1]


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_a_nucleus_larger_than_the_first_sort_is_that_of_a_full_sort(p):
    for logits in np.random.default_rng(0).normal(size=(4, 500)):
        assert kept_ids(sample.top_p(logits, p, first_sort_size=8)) == kept_ids(
            sample.top_p(logits, p, first_sort_size=500)
        )


@pytest.mark.parametrize("n", [1, 7, 40, 1000, 3000])
def test_the_largest_are_those_of_a_full_sort(n):
    """With coarse numbers, so that many are equal; 3000 is more than the number of columns."""
    logits = np.random.default_rng(1).integers(60, size=3001).astype(np.float32)
    expected = np.lexsort((np.arange(3001), -logits))[:n]
    assert sample.sort_largest(logits, n)[:n].tolist() == logits[expected].tolist()
    assert kept_ids(sample.top_k(logits, n)) == sorted(expected)


def test_top_p_counts_the_probability_that_top_k_left():
    logits = LOGITS[sample.top_k(LOGITS, 2)]  # of the ids 1 and 3; .5 and .3 become .625 and .375
    assert kept_ids(sample.top_p(logits, 0.6)) == [0]
    assert kept_ids(sample.top_p(logits, 0.7)) == [0, 1]


def test_penalty_divides_positive_and_multiplies_negative_logits():
    logits = np.array([2.0, -2.0, 3.0])
    seen = np.array([1, 0, 1])
    np.testing.assert_allclose(sample.apply_repetition_penalty(logits, seen, 2.0), [1.0, -4.0, 3.0])
    np.testing.assert_allclose(sample.apply_repetition_penalty(logits, seen, 1.0), logits)


def test_the_choice_is_the_largest_sum_of_logit_and_gumbel_number():
    # Gumbel numbers by hand: 0.5 gives 0.37, 0.9 gives -0.83, 0.01 gives 4.60, 0.6 gives 0.09.
    # The logits are -1.90, -0.69, -3.00 and -1.20.
    assert sample.gumbel_argmax(LOGITS, words(0.5, 0.9, 0.01, 0.6)) == 2  # the sums: -1.53, -1.53, 1.60, -1.12
    assert sample.gumbel_argmax(LOGITS, words(0.5, 0.9, 0.5, 0.6)) == 3  # -1.53, -1.53, -2.63, -1.12
    assert sample.gumbel_argmax(LOGITS, words(0.5, 0.5, 0.5, 0.6)) == 1  # -1.53, -0.33, -2.63, -1.12


def test_the_smallest_and_largest_words_give_finite_numbers():
    """The generator could return 0 and 2**32 - 1."""
    numbers = sample.RandomNumbers(seed=0, sample=0)
    numbers.generator = SimpleNamespace(random_raw=lambda n: np.full(n, 0xFFFF_FFFF_0000_0000, np.uint64))
    drawn = numbers.words(0, 4)
    assert sample.to_uniform(drawn).tolist() == [2.0**-33, 1 - 2.0**-24, 2.0**-33, 1 - 2.0**-24]
    assert sample.gumbel_argmax(LOGITS, drawn) == 0
    assert sample.gumbel_argmax(LOGITS[1:2], drawn[1:2]) == 0


def test_a_token_without_probability_is_never_chosen():
    logits = np.array([-np.inf, 0.0, -np.inf, -50.0], np.float32)
    numbers = sample.RandomNumbers(seed=0, sample=0)
    for token in range(100):
        assert sample.gumbel_argmax(logits, numbers.words(token, 4)) == 1
    assert sample.gumbel_argmax(logits, np.array([0, 2**32 - 1, 0, 0], np.uint32)) == 1


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 5.0, 40.0])
def test_pruning_keeps_the_winner(spread):
    """Compared with the Gumbel numbers of all, for words that include the smallest and the largest."""
    rng = np.random.default_rng(2)
    for _ in range(40):
        logits = (spread * rng.normal(size=3000)).astype(np.float32)
        drawn = rng.integers(2**32, size=3000, dtype=np.uint32)
        drawn[rng.integers(3000, size=9)] = [0, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
        gumbel = -np.log(-np.log1p(-sample.to_uniform(drawn)))
        assert sample.gumbel_argmax(logits, drawn) == np.argmax(logits + gumbel)


def test_frequencies_are_the_probabilities():
    """20,000 draws: a deviation of 0.015 is more than four standard errors."""
    numbers = sample.RandomNumbers(seed=0, sample=0)
    ids = [sample.gumbel_argmax(LOGITS, numbers.words(token, 4)) for token in range(20_000)]
    np.testing.assert_allclose(np.bincount(ids, minlength=4) / 20_000, PROBABILITIES, atol=0.015)


def test_rounding_by_the_batch_size_changes_no_choice():
    """2,000 draws of 50,000 ids agree despite errors of a millionth of a logit, as another batch size causes them."""
    rng = np.random.default_rng(0)
    numbers = sample.RandomNumbers(seed=1, sample=0)
    for token in range(20):
        logits = rng.normal(size=50_000).astype(np.float32)
        noisy = logits + rng.normal(size=(100, 50_000)).astype(np.float32) * np.float32(1e-6)
        drawn = numbers.words(token, 50_000)
        assert {sample.gumbel_argmax(row, drawn) for row in noisy} == {sample.gumbel_argmax(logits, drawn)}


def next_id(favored, sampling, logits=LOGITS, prompt=(), new=()):
    """Return the chosen id if chance favors one id by a Gumbel number about 4.6 above the others."""
    numbers = [0.5] * len(logits)
    numbers[favored] = 0.007
    return sample.next_token(logits, sampling, words(*numbers), prompt, new)


def test_temperature_zero_is_greedy():
    assert next_id(3, Sampling(temperature=0)) == 1
    assert next_id(3, Sampling()) == 3
    assert next_id(3, Sampling(temperature=0, top_k=3)) == 1
    assert next_id(3, Sampling(temperature=0), logits=np.zeros(4, np.float32)) == 0


@pytest.mark.parametrize("temperature", [1e-50, 1e-38, 1e-30, 1e-6])
def test_a_very_small_temperature_is_greedy(temperature):
    logits = np.array([30.0, 31, -200, 30.9], np.float32)
    for filters in ({}, {"top_k": 3}, {"top_p": 0.9}):
        assert next_id(3, Sampling(temperature=temperature, **filters), logits=logits) == 1


def test_a_very_large_temperature_makes_the_draw_uniform():
    assert [next_id(i, Sampling(temperature=1e38)) for i in range(4)] == [0, 1, 2, 3]


def test_top_k_1_is_greedy():
    assert [next_id(i, Sampling(top_k=1)) for i in range(4)] == [1] * 4


def test_temperature_is_applied_before_the_filters():
    # At temperature 4 the two most likely ids have 0.6 of the probability, not 0.8: a nucleus of 0.7 needs a third id.
    assert next_id(0, Sampling(temperature=1, top_p=0.7)) == 1
    assert next_id(0, Sampling(temperature=4, top_p=0.7)) == 0


def test_the_penalty_applies_to_the_greedy_choice():
    sampling = Sampling(temperature=0, repetition_penalty=5.0)
    assert next_id(0, sampling, prompt=[1]) == next_id(0, sampling, new=[1]) == 3


def test_random_numbers_depend_on_seed_and_sample():
    def draw(seed, number):
        stream = sample.RandomNumbers(seed, number)
        return sample.to_uniform(np.concatenate([stream.words(0, 5), stream.words(1, 5)])).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(seed, number)) for seed in (0, 1, 2**40) for number in (0, 1)}) == 6
    # Pairs that NumPy would seed alike: (low, sample) and low + 2**32 * sample.
    assert len({tuple(draw(*pair)) for pair in ((5, 7), (5 + 7 * 2**32, 0), (5, 7 * 2**32), (5 + 2**32, 7))}) == 4
    # Constants, so that a NumPy release that changes the numbers fails the test.
    np.testing.assert_allclose(draw(0, 0)[:5], FIRST_NUMBERS, rtol=1e-6)


FIRST_NUMBERS = [0.13562296330928802, 0.014067035168409348, 0.937732458114624, 0.2577672600746155, 0.3864486813545227]


def test_frequency_and_presence_count_new_tokens_only():
    """.5, .3 and .15: for an id that came twice, frequency is subtracted twice and presence once."""
    twice = [1, 1]
    assert next_id(0, Sampling(temperature=0, frequency_penalty=0.3), new=twice) == 3  # -.69 - .6 is below -1.20
    assert next_id(0, Sampling(temperature=0, frequency_penalty=0.3), new=[1]) == 1
    assert next_id(0, Sampling(temperature=0, presence_penalty=0.3), new=twice) == 1
    assert next_id(0, Sampling(temperature=0, presence_penalty=0.6), new=twice) == 3
    assert next_id(0, Sampling(temperature=0, frequency_penalty=2, presence_penalty=2), prompt=twice) == 1
    assert next_id(0, Sampling(temperature=0, presence_penalty=-2), new=[0]) == 0


def test_a_bias_is_added_before_everything_else():
    assert next_id(0, Sampling(temperature=0, logit_bias={2: 3})) == 2
    assert next_id(0, Sampling(top_k=1, logit_bias={2: 3})) == 2
    # The bias makes id 1 0.31, and the penalty of 10 makes that 0.03. In the other order it would be -6.9 + 1 = -5.9.
    assert next_id(0, Sampling(temperature=0, logit_bias={1: 1}, repetition_penalty=10), prompt=[1]) == 1


@pytest.mark.parametrize(
    "p, ids", [(0, [0, 1, 2, 3]), (0.05, [0, 1, 2, 3]), (0.2, [0, 1, 3]), (0.59, [1, 3]), (1, [1])]
)
def test_min_p(p, ids):
    """.15, .5, .05 and .3 are .3, 1, .1 and .6 of the largest probability."""
    assert kept_ids(sample.min_p(LOGITS, p)) == ids


def test_min_p_is_applied_after_the_temperature():
    assert next_id(2, Sampling(min_p=0.5)) in (1, 3)
    assert next_id(2, Sampling(temperature=10, min_p=0.5)) == 2  # its ratio to the largest, .1, becomes .79


def test_random_words_do_not_depend_on_the_order_of_calls():
    numbers, stream = sample.RandomNumbers(3, 4), sample.RandomNumbers(3, 4)
    rows = [numbers.words(token, 7) for token in range(6)]
    for token in (4, 0, 1, 5, 5):
        assert stream.words(token, 7, np.array([6, 0])).tolist() == rows[token][[6, 0]].tolist()


def test_top_ids_are_sorted():
    assert sample.top_ids(LOGITS, 3).tolist() == [1, 3, 0]
    assert sample.top_ids(np.zeros(4, np.float32), 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"frequency_penalty": 3}, "frequency_penalty must be a number from -2 to 2 .0 is off., not 3"),
        ({"presence_penalty": float("nan")}, "presence_penalty must be a finite number, not nan"),
        ({"min_p": 1.5}, "min_p must be a number from 0 to 1 .0 is off., not 1.5"),
        ({"logit_bias": {-1: 2}}, "an id of logit_bias must be a whole number of at least 0, not -1"),
        ({"logit_bias": {1: float("inf")}}, "logit_bias must be a finite number, not inf"),
        ({"temperature": -1.0}, "temperature must be a number of 0 or more .0 is greedy., not -1.0"),
        ({"temperature": float("nan")}, "not nan"),
        ({"temperature": float("inf")}, "not inf"),
        ({"temperature": "hot"}, "not 'hot'"),
        ({"top_k": -1}, "top_k must be a whole number of at least 0, not -1"),
        ({"top_k": 1.5}, "top_k must be a whole number, not 1.5"),
        ({"top_p": 1.5}, "top_p must be a number from 0 to 1 .0 and 1 are off., not 1.5"),
        ({"top_p": float("nan")}, "not nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number from 0.001 to 1000 .1 is off., not 0.0"),
        ({"repetition_penalty": 1e-300}, "not 1e-300"),
        ({"repetition_penalty": None}, "not None"),
    ],
)
def test_settings_out_of_range_are_rejected(wrong, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**wrong)


@pytest.mark.parametrize("penalty", [0.001, 1000])
@pytest.mark.parametrize("temperature", [0, 1e-300, 1, 1e300])
def test_the_extremes_of_the_allowed_ranges_give_an_id(penalty, temperature):
    logits = np.float32([-300, 200, 0, 1e-30])
    sampling = Sampling(temperature, top_k=3, top_p=0.9, repetition_penalty=penalty)
    assert next_id(2, sampling, logits, prompt=[0, 1, 3]) in range(4)


def test_docstring_examples():
    assert doctest.testmod(sample) == (0, 6)
