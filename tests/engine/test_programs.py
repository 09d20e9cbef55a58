"""Random programs of sequences that join, leave and share prefixes, each compared with the reference in NumPy."""

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2 import sample
from gpt2.engine import batch as batch_module
from gpt2.engine import reference
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import PrefixCache
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence, truncate_to_window
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import Sampling

N_CTX = 150
COMMON_PREFIX = [3 * i % 250 for i in range(200)]
MAX_LOGPROB_ERROR = 2e-4  # rounding in float32


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return open_model_dir(tiny.write_model(tmp_path_factory.mktemp("models") / "programs", n_ctx=N_CTX))


@pytest.fixture(scope="module")
def weights(directory):
    return tiny.read(directory.weights_path, directory.hparams)


@pytest.fixture(scope="module", params=["native", "tensorflow"])
def backend(request, directory):
    if request.param == "native":
        request.getfixturevalue("native")
    return load_backend(directory, native=request.param == "native")


def windows(sequence, ids):
    """Yield the window that each of the new ids was chosen from."""
    window = list(truncate_to_window(sequence.prompt, N_CTX))
    n_cached = 0
    for token in ids:
        if n_cached == N_CTX:
            window = window[-(N_CTX // 2) :]
        yield list(window)
        n_cached = len(window)
        window.append(token)


def check(weights, hparams, sequence, choices):
    """Check each id and log-probability against those of the reference and the sequence's random numbers."""
    ids = [choice.id for choice in choices]
    numbers = sample.RandomNumbers(sequence.seed, sequence.sample)
    # Logits by the start of the window; the longest window has the logits of all shorter ones.
    computed: dict[int, np.ndarray] = {}
    all_windows = list(windows(sequence, ids))
    for token, window in enumerate(all_windows):
        start = len(sequence.prompt) + token - len(window)
        if start not in computed:
            longest = max((w for t, w in enumerate(all_windows) if len(sequence.prompt) + t - len(w) == start), key=len)
            computed[start] = reference.logits(weights, hparams, longest)
        logits = computed[start][len(window) - 1]
        words = numbers.words(token, hparams.n_vocab)
        expected = sample.next_token(logits.astype(np.float32), sequence.sampling, words, sequence.prompt, ids[:token])
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert ids[token] == expected, (sequence, token)
        assert abs(choices[token].logprob - logprobs[expected]) < MAX_LOGPROB_ERROR
        for (top_id, logprob), expected_logprob in zip(choices[token].top_logprobs, np.sort(logprobs)[::-1]):
            assert abs(logprob - logprobs[top_id]) < MAX_LOGPROB_ERROR > abs(logprob - expected_logprob)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 0.7, 1]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1, 0.8]),
    repetition_penalty=st.sampled_from([1, 1.2]),
    presence_penalty=st.sampled_from([0, 0.5]),
    logit_bias=st.sampled_from([{}, {7: 3}]),
)
prompts = st.builds(
    lambda start, length, suffix: [*COMMON_PREFIX[start : start + length], *suffix],
    st.sampled_from([0, 0, 1]),
    st.integers(0, 160),
    st.lists(st.integers(0, 250), min_size=1, max_size=4),
)
sequences = st.builds(
    TokenSequence,
    prompts,
    samplings,
    st.integers(0, 9),
    length=st.integers(1, 30),
    top_logprobs=st.sampled_from([0, 3]),
    keep=st.booleans(),
)
programs = st.lists(
    st.one_of(
        st.tuples(st.just("add"), sequences),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.integers(1, 12)),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs, st.sampled_from([0, 4, 1000]), st.sampled_from([3, 1000]), st.sampled_from([1, 7, 16]))
def test_random_programs(backend, directory, weights, program, cached_blocks, max_blocks, chunk_ids):
    batch = Batch(backend, PrefixCache(backend.new_pool()), max_blocks)
    batch.prefixes.max_blocks = cached_blocks
    sequences = {}
    choices = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "MIN_PREFILL_CHUNK", chunk_ids)
        patch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 2 * chunk_ids)
        for action, argument in [*program, ("step", 60)]:
            if action == "add":
                number = batch.add(argument)
                sequences[number] = argument
                choices[number] = []
            elif action == "remove" and batch.sequences:
                batch.remove(list(batch.sequences)[argument % len(batch.sequences)])
            for _ in range(argument if action == "step" else 0):
                for choice in batch.step():
                    choices[choice.sequence].append(choice)
                    if len(choices[choice.sequence]) == sequences[choice.sequence].length:
                        batch.remove(choice.sequence)
    for number, sequence in sequences.items():
        check(weights, directory.hparams, sequence, choices[number])
    with batch:
        pass
    assert batch.pool.n_used == len(batch.prefixes.nodes) <= cached_blocks
