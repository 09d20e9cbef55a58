"""Generation from prompts to text."""

import dataclasses
import gc
import warnings

import pytest
import tiny
from tiny import GOLDEN

from gpt2 import generate, text_batch
from gpt2.engine import kv_cache
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error, UsageError
from gpt2.generate import Request
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)
PROMPTS = ["the cat", "the dog sat on", "a", "mat and the log", "on"]


def texts(model, requests, batch_size=1):
    return list(generate.generate(model, requests, batch_size))


def test_greedy_text_equals_the_originals(small_model):
    for prompt, greedy in zip(GOLDEN["prompts"], GOLDEN["greedy"]):
        assert texts(small_model, [Request(prompt, 40, GREEDY)]) == [small_model.encoder.decode(greedy)]


def test_batch_size_does_not_change_samples(tiny_model):
    requests = [Request(p, 20 + 9 * i, Sampling(top_k=40), 7, i) for i, p in enumerate(PROMPTS)]
    single = texts(tiny_model, requests)
    assert len(set(single)) == 5
    for batch_size in (2, 3, 5, 8):
        assert texts(tiny_model, requests, batch_size) == single


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 25), marks=pytest.mark.slow)])
def test_a_seed_gives_the_same_texts_at_batch_sizes_1_2_and_5(small_model, seeds):
    for seed in seeds:
        requests = [Request(None, 12, Sampling(), seed, number) for number in range(5)]
        single = texts(small_model, requests)
        assert texts(small_model, requests, 2) == texts(small_model, requests, 5) == single
        assert len(set(single)) == 5


def test_streamed_chunks_join_to_the_whole_text(tiny_model):
    requests = [Request(p, 30, Sampling(), 3, i) for i, p in enumerate(PROMPTS)]
    streamed = [""] * len(requests)
    ended = []
    for chunk in generate.stream(tiny_model, requests):
        assert chunk.request not in ended
        streamed[chunk.request] += chunk.text
        if chunk.ended:
            ended.append(chunk.request)
    assert streamed == texts(tiny_model, requests)
    assert sorted(ended) == list(range(5))


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100])
def test_length_is_the_number_of_new_tokens(tiny_model, length):
    """The window has 32 tokens. Each random token decodes to at least one byte and so to a chunk."""
    chunks = list(generate.stream(tiny_model, [Request(None, length, seed=1)]))
    assert len(chunks) == max(1, length)
    assert (chunks[0].token is None) == (length == 0) and chunks[-1].ended == text_batch.FINISH_LENGTH


def test_a_text_ends_before_a_stop_string(tiny_model):
    free = texts(tiny_model, [Request(p, 40, seed=5, sample=i) for i, p in enumerate(PROMPTS)])
    stop = free[0][10:14]
    stopped = [dataclasses.replace(Request(p, 40, seed=5, sample=i), stop=(stop,)) for i, p in enumerate(PROMPTS)]
    assert texts(tiny_model, stopped, 5) == [text.split(stop)[0] for text in free]
    assert len(list(generate.stream(tiny_model, stopped[:1]))) < 40  # no further token is computed


def test_end_of_text_can_be_a_stop_string(tiny_model):
    free = texts(tiny_model, [Request(None, 300, seed=s) for s in range(4)], 4)
    assert any("<|endoftext|>" in text for text in free)  # by default generation continues after it
    stopped = texts(tiny_model, [Request(None, 300, seed=s, stop=("<|endoftext|>",)) for s in range(4)], 4)
    assert stopped == [text.split("<|endoftext|>")[0] for text in free]


def test_a_prompt_longer_than_the_window_is_truncated_with_a_warning(tiny_model):
    prompt = " the cat sat on the mat" * 20
    with pytest.warns(UserWarning, match="the prompt has 120 tokens; only its last 31 fit the window"):
        (text,) = texts(tiny_model, [Request(prompt, 10, GREEDY)])
    end = tiny_model.encoder.decode(tiny_model.encoder.encode(prompt)[-31:])
    assert texts(tiny_model, [Request(end, 10, GREEDY)]) == [text]


def test_two_models_generate_in_turns(tmp_path, tiny_model):
    other = generate.load(str(tiny.write_model(tmp_path / "other", seed=9, n_ctx=16, n_embd=16)))
    request = Request("the cat", 30, GREEDY)
    first = texts(tiny_model, [request])
    mixed = zip(generate.stream(tiny_model, [request]), generate.stream(other, [request]))
    both = ["".join(part) for part in zip(*((a.text, b.text) for a, b in mixed))]
    assert both == [*first, *texts(other, [request])]
    assert both[0] != both[1]


def test_repeated_generation_leaks_no_objects(tiny_model):
    texts(tiny_model, [Request("a", 10)])
    gc.collect()
    before = len(gc.get_objects())
    for seed in range(30):
        texts(tiny_model, [Request("a", 10, seed=seed)])
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    assert tiny_model.backend.forward.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 5}, "the prompt must be text, ids, or None .*, not 5"),
        ({"length": -1}, "length must be a whole number of at least 0, not -1"),
        ({"length": 1.5}, "length must be a whole number, not 1.5"),
        ({"length": True}, "length must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"seed": 2**64}, r"seed must be below 2\*\*64"),
        ({"stop": ("",)}, "stop must be a non-empty string"),
        ({"stop": ""}, "stop must be a non-empty string"),
        ({"stop": ["a", 5]}, "stop must be a non-empty string"),
    ],
)
def test_impossible_requests_are_rejected(arguments, message):
    with pytest.raises(UsageError, match=message):
        Request(**({"prompt": "a", "length": 1} | arguments))


def test_a_single_stop_string_needs_no_list(tiny_model):
    (text,) = texts(tiny_model, [Request("a", 30)])
    assert texts(tiny_model, [Request("a", 30, stop=text[9:12])]) == [text.split(text[9:12])[0]]
    assert texts(tiny_model, [Request("a", 30, stop=[text[9:12]])]) == [text.split(text[9:12])[0]]


def test_available_memory_limits_the_batch_size(tiny_model, monkeypatch):
    """The requests are a generator of a billion samples that never becomes a list; each sample takes one block."""
    started = []
    requests = (started.append(number) or Request("a", 5, sample=number) for number in range(10**9))
    loaded = generate.Model(tiny_model.encoder, tiny_model.backend)
    n_blocks = 7 - loaded.prefixes.pool.n_spare
    available = n_blocks * loaded.prefixes.pool.block_bytes / kv_cache.CACHE_MEMORY_SHARE
    monkeypatch.setattr(kv_cache.devices, "available_memory", lambda: available)
    stream = generate.stream(loaded, requests, 10**9)
    with pytest.warns(UserWarning, match="there is memory for 7 samples at the same time, not for 1000000000"):
        chunks = [next(stream) for _ in range(7 * 5)]
    assert [chunk.request for chunk in chunks if chunk.ended] == list(range(7)) and len(started) <= 9


@pytest.mark.parametrize(
    "blocks",
    [[3] + [1] * 20, [1, 1, 4] + [1] * 20, [9] + [1] * 20, [1, 3, 3, 2] + [1] * 20],
    ids=["at the start", "after two", "more than all", "several"],
)
@pytest.mark.parametrize("batch_size", [4, 9, None])
def test_a_request_that_waits_for_memory_does_not_lower_the_batch_size(tiny_model, monkeypatch, blocks, batch_size):
    """Memory for 4 blocks: 4 of the small requests fit, before and after the large ones."""
    available = 4 * tiny_model.backend.new_pool().block_bytes / kv_cache.CACHE_MEMORY_SHARE
    monkeypatch.setattr(kv_cache.devices, "available_memory", lambda: available)
    monkeypatch.setattr(TokenSequence, "count_blocks", lambda sequence, _: blocks[sequence.sample])
    sizes = []
    step = text_batch.TextBatch.step
    monkeypatch.setattr(text_batch.TextBatch, "step", lambda batch: sizes.append(len(batch)) or step(batch))
    model = generate.Model(tiny_model.encoder, tiny_model.backend)
    requests = [Request("the cat", 3, GREEDY, sample=sample) for sample in range(len(blocks))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chunks = list(generate.stream(model, requests, batch_size))
    assert sorted(chunk.request for chunk in chunks if chunk.finish_reason) == list(range(len(blocks)))
    assert max(sizes) == 4 and sizes[-12:].count(4) >= 8
    assert len(caught) <= (batch_size is not None)


def test_the_next_request_starts_when_another_one_ends(tiny_model):
    """The first text is long; the others are generated one after the other alongside it."""
    lengths = [30, 3, 4, 5, 6, 7]
    requests = [Request(p, n, seed=1) for p, n in zip([*PROMPTS, "the"], lengths)]
    stream = list(generate.stream(tiny_model, requests, 2))
    assert [chunk.request for chunk in stream if chunk.ended] == [1, 2, 3, 4, 5, 0]
    completions = list(generate.completions(tiny_model, requests, 2))
    assert [completion.text for completion in completions] == texts(tiny_model, requests)
    assert [len(completion.tokens) for completion in completions] == lengths


def test_a_completion_has_its_tokens_and_finish_reason(tiny_model):
    (free,) = generate.completions(tiny_model, [Request("the cat", 30, seed=5)])
    assert free.ended == text_batch.FINISH_LENGTH and free.prompt == ()
    assert tiny_model.encoder.decode([token.id for token in free.tokens]) == free.text
    assert all(token.logprob < 0 and token.top_logprobs == () for token in free.tokens)
    request = Request("the cat", 30, seed=5, stop=free.text[9:12], logprobs=2, echo=True)
    (stopped,) = generate.completions(tiny_model, [request])
    assert stopped.ended == text_batch.FINISH_STOP and stopped.text == free.text.split(free.text[9:12])[0]
    for detailed, token in zip(stopped.tokens, free.tokens):
        assert detailed[1:2] == token[1:2] and abs(detailed.logprob - token.logprob) < 1e-5
        assert len(detailed.top_logprobs) == 2
    ids = tiny_model.encoder.encode("the cat")
    assert stopped.prompt[0] is None and [choice.id for choice in stopped.prompt[1:]] == ids[1:]


def test_a_closed_stream_releases_its_blocks(tiny_model):
    loaded = generate.Model(tiny_model.encoder, tiny_model.backend)
    stream = generate.stream(loaded, [Request(p, 30) for p in PROMPTS])
    next(stream)
    assert loaded.prefixes.pool.n_used > len(loaded.prefixes.nodes)
    stream.close()
    assert loaded.prefixes.pool.n_used == len(loaded.prefixes.nodes)


def test_an_impossible_batch_size_is_rejected(tiny_model):
    with pytest.raises(UsageError, match="batch_size must be a whole number of at least 1, not 0"):
        texts(tiny_model, [Request("a", 1)], 0)


def test_a_vocabulary_of_another_model_is_rejected(tmp_path, tiny_dir, vocabulary):
    directory = tiny.write_model(tmp_path / "mixed")
    for name in ("encoder.json", "vocab.bpe"):
        (directory / name).write_bytes((vocabulary / name).read_bytes())
    with pytest.raises(GPT2Error, match="the vocabulary has 50257 ids, but hparams.json has n_vocab"):
        generate.load(str(directory))


def test_loading_gives_no_warning(tiny_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate.load(str(tiny_dir))
