"""Random programs of rows that join, leave and share beginnings, each row compared with itself alone in NumPy."""

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
STEM = [3 * i % 250 for i in range(200)]
ROUNDING = 2e-4  # of log-probabilities in float32


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


def windows(row, ids):
    """What was seen when each of the new ids was chosen."""
    window, filled = list(truncate_to_window(row.prompt, N_CTX)), 0
    for token in ids:
        if filled == N_CTX:
            window = window[-(N_CTX // 2) :]
        yield list(window)
        filled = len(window)
        window.append(token)


def check(weights, hparams, row, choices):
    """Each id is the one that the row's random numbers choose by the reference, and so is its log-probability."""
    ids = [choice.id for choice in choices]
    numbers = sample.RandomNumbers(row.seed, row.sample)
    computed: dict[int, np.ndarray] = {}  # by where the window begins; the longest window tells of all shorter ones
    all_windows = list(windows(row, ids))
    for token, window in enumerate(all_windows):
        begin = len(row.prompt) + token - len(window)
        if begin not in computed:
            longest = max((w for t, w in enumerate(all_windows) if len(row.prompt) + t - len(w) == begin), key=len)
            computed[begin] = reference.logits(weights, hparams, longest)
        logits = computed[begin][len(window) - 1]
        words = numbers.words(token, hparams.n_vocab)
        expected = sample.next_token(logits.astype(np.float32), row.sampling, words, row.prompt, ids[:token])
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert ids[token] == expected, (row, token)
        assert abs(choices[token].logprob - logprobs[expected]) < ROUNDING
        for (other, said), most in zip(choices[token].top_logprobs, np.sort(logprobs)[::-1]):
            assert abs(said - logprobs[other]) < ROUNDING > abs(said - most)


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
    lambda begin, length, more: [*STEM[begin : begin + length], *more],
    st.sampled_from([0, 0, 1]),
    st.integers(0, 160),
    st.lists(st.integers(0, 250), min_size=1, max_size=4),
)
rows = st.builds(
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
        st.tuples(st.just("add"), rows),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.integers(1, 12)),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs, st.sampled_from([0, 4, 1000]), st.sampled_from([3, 1000]), st.sampled_from([1, 7, 16]))
def test_random_programs(backend, directory, weights, program, size, room, beside):
    """size: of the store, in blocks."""
    batch = Batch(backend, PrefixCache(backend.new_pool(), size), room)
    batch.prefixes.most = size
    asked, found = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "MIN_PREFILL_CHUNK", beside)
        patch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 2 * beside)
        for what, argument in [*program, ("step", 60)]:
            if what == "add":
                number = batch.add(argument)
                asked[number], found[number] = argument, []
            elif what == "remove" and batch.sequences:
                batch.remove(list(batch.sequences)[argument % len(batch.sequences)])
            for _ in range(argument if what == "step" else 0):
                for choice in batch.step():
                    found[choice.sequence].append(choice)
                    if len(found[choice.sequence]) == asked[choice.sequence].length:
                        batch.remove(choice.sequence)
    for number, row in asked.items():
        check(weights, directory.hparams, row, found[number])
    with batch:
        pass
    assert batch.pool.n_used == len(batch.prefixes.nodes) <= size
