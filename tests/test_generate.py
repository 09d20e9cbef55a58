"""Prompts in, text out."""

import dataclasses
import gc
import warnings

import pytest
import tiny
from tiny import GOLDEN

from gpt2 import generate
from gpt2.engine import kv_cache
from gpt2.errors import GPT2Error, UsageError
from gpt2.generate import Request
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)
PROMPTS = ["the cat", "the dog sat on", "a", "mat and the log", "on"]


def texts(model, requests, batch_size=1):
    return list(generate.generate(model, requests, batch_size))


def test_text_of_the_original(small_model):
    for prompt, greedy in zip(GOLDEN["prompts"], GOLDEN["greedy"]):
        assert texts(small_model, [Request(prompt, 40, GREEDY)]) == [small_model.encoder.decode(greedy)]


def test_batch_size_changes_no_sample(tiny_model):
    requests = [Request(p, 20 + 9 * i, Sampling(top_k=40), 7, i) for i, p in enumerate(PROMPTS)]
    alone = texts(tiny_model, requests)
    assert len(set(alone)) == 5
    for batch_size in (2, 3, 5, 8):
        assert texts(tiny_model, requests, batch_size) == alone


def test_one_seed_one_text_at_batch_sizes_1_2_and_5(small_model):
    for seed in range(20):
        requests = [Request(None, 12, Sampling(), seed, number) for number in range(5)]
        alone = texts(small_model, requests)
        assert texts(small_model, requests, 2) == texts(small_model, requests, 5) == alone
        assert len(set(alone)) == 5


def test_streamed_text_is_the_whole_text(tiny_model):
    requests = [Request(p, 30, Sampling(), 3, i) for i, p in enumerate(PROMPTS)]
    streamed = [""] * len(requests)
    ends = []
    for piece in generate.stream(tiny_model, requests):
        assert piece.request not in ends
        streamed[piece.request] += piece.text
        if piece.ended:
            ends.append(piece.request)
    assert streamed == texts(tiny_model, requests)
    assert sorted(ends) == list(range(5))


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100])
def test_length_is_the_number_of_new_tokens(tiny_model, length):
    """In a window of 32; each token of random text decodes to at least a byte, which a piece announces."""
    pieces = list(generate.stream(tiny_model, [Request(None, length, seed=1)]))
    assert len(pieces) == max(1, length)
    assert (pieces[0].token is None) == (length == 0) and pieces[-1].ended == generate.FINISH_LENGTH


def test_a_stop_string_ends_a_row_before_it(tiny_model):
    free = texts(tiny_model, [Request(p, 40, seed=5, sample=i) for i, p in enumerate(PROMPTS)])
    stop = free[0][10:14]
    stopped = [dataclasses.replace(Request(p, 40, seed=5, sample=i), stop=(stop,)) for i, p in enumerate(PROMPTS)]
    assert texts(tiny_model, stopped, 5) == [text.split(stop)[0] for text in free]
    assert len(list(generate.stream(tiny_model, stopped[:1]))) < 40  # and no token more is computed


def test_end_of_text_is_a_stop_like_any_other(tiny_model):
    free = texts(tiny_model, [Request(None, 300, seed=s) for s in range(4)], 4)
    assert any("<|endoftext|>" in text for text in free)  # by default the text goes on past it
    stopped = texts(tiny_model, [Request(None, 300, seed=s, stop=("<|endoftext|>",)) for s in range(4)], 4)
    assert stopped == [text.split("<|endoftext|>")[0] for text in free]


def test_a_prompt_longer_than_the_window_keeps_its_end_and_warns(tiny_model):
    prompt = " the cat sat on the mat" * 20
    with pytest.warns(UserWarning, match="the prompt has 120 tokens; the window keeps its last 31"):
        (text,) = texts(tiny_model, [Request(prompt, 10, GREEDY)])
    end = tiny_model.encoder.decode(tiny_model.encoder.encode(prompt)[-31:])
    assert texts(tiny_model, [Request(end, 10, GREEDY)]) == [text]


def test_two_models_side_by_side(tmp_path, tiny_model):
    other = generate.load(str(tiny.write_model(tmp_path / "other", seed=9, n_ctx=16, n_embd=16)))
    request = Request("the cat", 30, GREEDY)
    first = texts(tiny_model, [request])
    mixed = zip(generate.stream(tiny_model, [request]), generate.stream(other, [request]))
    both = ["".join(part) for part in zip(*((a.text, b.text) for a, b in mixed))]
    assert both == [*first, *texts(other, [request])]
    assert both[0] != both[1]


def test_generating_again_and_again_keeps_nothing(tiny_model):
    texts(tiny_model, [Request("a", 10)])
    gc.collect()
    before = len(gc.get_objects())
    for seed in range(30):
        texts(tiny_model, [Request("a", 10, seed=seed)])
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    assert tiny_model.backend.forward.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 5}, "the prompt must be text, ids, or None .*, not 5"),
        ({"length": -1}, "length must be a whole number of at least 0, not -1"),
        ({"length": 1.5}, "length must be a whole number, not 1.5"),
        ({"length": True}, "length must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"seed": 2**64}, r"seed must be below 2\*\*64"),
        ({"stop": ("",)}, "stop must be a string that is not empty"),
        ({"stop": ""}, "stop must be a string that is not empty"),
        ({"stop": ["a", 5]}, "stop must be a string"),
    ],
)
def test_impossible_requests_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Request(**({"prompt": "a", "length": 1} | wrong))


def test_one_stop_string_needs_no_list(tiny_model):
    (text,) = texts(tiny_model, [Request("a", 30)])
    assert texts(tiny_model, [Request("a", 30, stop=text[9:12])]) == [text.split(text[9:12])[0]]
    assert texts(tiny_model, [Request("a", 30, stop=[text[9:12]])]) == [text.split(text[9:12])[0]]


def test_a_batch_is_as_large_as_memory_allows(tiny_model, monkeypatch):
    """A thousand million samples, of which nobody makes a list; each takes a block."""
    taken = []
    requests = (taken.append(number) or Request("a", 5, sample=number) for number in range(10**9))
    loaded = generate.Model(tiny_model.encoder, tiny_model.backend)
    room = 7 - loaded.prefixes.pool.n_spare
    available = room * loaded.prefixes.pool.block_bytes / kv_cache.CACHE_MEMORY_SHARE
    monkeypatch.setattr(kv_cache.devices, "available_memory", lambda: available)
    stream = generate.stream(loaded, requests, 10**9)
    with pytest.warns(UserWarning, match="there is memory for 7 samples at the same time, not for 1000000000"):
        pieces = [next(stream) for _ in range(7 * 5)]
    assert [piece.request for piece in pieces if piece.ended] == list(range(7)) and len(taken) <= 9


def test_the_next_request_takes_the_place_of_one_that_has_ended(tiny_model, monkeypatch):
    """One of two rows is long: beside it the others are written one after the other."""
    lengths = [30, 3, 4, 5, 6, 7]
    requests = [Request(p, n, seed=1) for p, n in zip([*PROMPTS, "the"], lengths)]
    stream = list(generate.stream(tiny_model, requests, 2))
    assert [piece.request for piece in stream if piece.ended] == [1, 2, 3, 4, 5, 0]
    found = list(generate.completions(tiny_model, requests, 2))
    assert [completion.text for completion in found] == texts(tiny_model, requests)
    assert [len(completion.tokens) for completion in found] == lengths


def test_a_text_comes_with_its_tokens_and_why_it_ended(tiny_model):
    (free,) = generate.completions(tiny_model, [Request("the cat", 30, seed=5)])
    assert free.ended == generate.FINISH_LENGTH and free.prompt == ()
    assert tiny_model.encoder.decode([token.id for token in free.tokens]) == free.text
    assert all(token.logprob < 0 and token.likeliest == () for token in free.tokens)
    request = Request("the cat", 30, seed=5, stop=free.text[9:12], logprobs=2, echo=True)
    (stopped,) = generate.completions(tiny_model, [request])
    assert stopped.ended == generate.FINISH_STOP and stopped.text == free.text.split(free.text[9:12])[0]
    for with_more, token in zip(stopped.tokens, free.tokens):
        assert with_more[1:2] == token[1:2] and abs(with_more.logprob - token.logprob) < 1e-5
        assert len(with_more.likeliest) == 2
    ids = tiny_model.encoder.encode("the cat")
    assert stopped.prompt[0] is None and [said.id for said in stopped.prompt[1:]] == ids[1:]


def test_a_stream_that_is_closed_gives_its_blocks_back(tiny_model):
    loaded = generate.Model(tiny_model.encoder, tiny_model.backend)
    stream = generate.stream(loaded, [Request(p, 30) for p in PROMPTS])
    next(stream)
    assert loaded.prefixes.pool.n_used > len(loaded.prefixes.nodes)
    stream.close()
    assert loaded.prefixes.pool.n_used == len(loaded.prefixes.nodes)


def test_an_impossible_batch_size_is_refused(tiny_model):
    with pytest.raises(UsageError, match="batch_size must be a whole number of at least 1, not 0"):
        texts(tiny_model, [Request("a", 1)], 0)


def test_a_vocabulary_of_another_model_is_refused(tmp_path, tiny_dir, vocabulary):
    directory = tiny.write_model(tmp_path / "mixed")
    for name in ("encoder.json", "vocab.bpe"):
        (directory / name).write_bytes((vocabulary / name).read_bytes())
    with pytest.raises(GPT2Error, match="the vocabulary has 50257 ids, but hparams.json says n_vocab"):
        generate.load(str(directory))


def test_loading_warns_of_nothing(tiny_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate.load(str(tiny_dir))
