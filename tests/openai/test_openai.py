"""OpenAI's modules in graph mode: their numbers match the library's, and invalid arguments are rejected."""

import json

import numpy as np
import pytest
import tensorflow as tf
from one_by_one import GREEDY, generate_slowly

from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error, UsageError
from gpt2.openai import encoder, model, sample

v1 = tf.compat.v1
PROMPTS = [1, 2, 3], [9] * 31, list(range(32)), list(range(50))


@pytest.fixture
def sizes(tiny_dir):
    return model.default_hparams().override_from_dict(json.loads((tiny_dir / "hparams.json").read_text()))


@pytest.fixture
def expected(oracle):
    """The library's greedy ids, computed eagerly before a graph exists."""
    return {len(prompt): generate_slowly(oracle, TokenSequence(prompt, GREEDY), 40) for prompt in PROMPTS}


@pytest.fixture
def sess(tiny_dir):
    with tf.Graph().as_default(), v1.Session() as session:
        session.restored = lambda: v1.train.Saver().restore(session, tf.train.latest_checkpoint(str(tiny_dir)))
        yield session


def test_greedy_ids_match_the_library_also_beyond_the_window(expected, sess, sizes):
    context = v1.placeholder(tf.int32, [2, None])
    length, temperature = v1.placeholder(tf.int32, []), v1.placeholder(tf.float32, [])
    output = sample.sample_sequence(
        hparams=sizes, length=length, context=context, batch_size=2, temperature=temperature, top_k=1
    )
    sess.restored()
    for prompt in PROMPTS:
        for value in (0.0, 1.0):  # greedy by temperature, greedy by top_k
            ids = sess.run(output, {context: [prompt] * 2, length: 40, temperature: value})
            assert (
                ids[:, len(prompt) :].tolist() == [expected[len(prompt)]] * 2
                and ids[0, : len(prompt)].tolist() == prompt
            )
    assert sess.run(output, {context: [[1, 2]] * 2, length: 0, temperature: 1.0}).tolist() == [[1, 2]] * 2


def test_logits_with_a_past_match_those_without(sess, sizes):
    tokens = tf.constant([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    full = model.model(sizes, tokens)
    first = model.model(sizes, tokens[:, :3])
    rest = model.model(sizes, tokens[:, 3:], past=first["present"])
    sess.restored()
    full, first, rest = sess.run([full, first, rest])
    np.testing.assert_allclose(np.concatenate([first["logits"], rest["logits"]], 1), full["logits"], atol=1e-5)
    np.testing.assert_allclose(np.concatenate([first["present"], rest["present"]], -2), full["present"], atol=1e-5)
    assert list(full["present"].shape) == model.past_shape(hparams=sizes, batch_size=2, sequence=5)


def kept_ids(logits):
    return [np.flatnonzero(row > -1e9).tolist() for row in logits]


def test_filters(sess):
    logits = tf.constant([[1.0, 3, 3, 2], [0, 0, 0, 0]])
    probs = tf.math.log([[0.15, 0.5, 0.05, 0.3], [0.97, 0.01, 0.01, 0.01]])
    filtered = sess.run([sample.top_k_logits(logits, k) for k in (0, 1, 3, tf.constant(2), 9)])
    everything = [[0, 1, 2, 3]] * 2
    assert [kept_ids(x) for x in filtered] == [
        everything,
        [[1], [0]],
        [[1, 2, 3], [0, 1, 2]],
        [[1, 2], [0, 1]],
        everything,
    ]
    filtered = sess.run([sample.top_p_logits(probs, p) for p in (0, 0.6, tf.constant(0.9), 1.0)])
    assert [kept_ids(x) for x in filtered] == [everything, [[1, 3], [0]], [[0, 1, 3], [0]], everything]


def test_draws_follow_the_filtered_probabilities(sess, sizes):
    first = sample.sample_sequence(hparams=sizes, length=1, start_token=1, batch_size=4000, top_k=3)[:, 1]
    logits = model.model(sizes, [[1]])["logits"][0, 0]
    v1.set_random_seed(1)
    sess.restored()
    ids, logits = sess.run([first, logits])
    largest = np.argsort(-logits)[:3]
    probs = np.exp(logits[largest]) / np.exp(logits[largest]).sum()
    assert set(ids) == set(largest)
    np.testing.assert_allclose([(ids == i).mean() for i in largest], probs, atol=0.03)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "Specify exactly one of start_token and context!"),
        ({"start_token": 1, "context": [[1]]}, "Specify exactly one"),
        ({"start_token": 1, "temperature": -1}, "temperature must be"),
        ({"start_token": 1, "top_p": 2}, "top_p must be"),
        ({"start_token": 1, "length": -1}, "length must be"),
        ({"start_token": 1, "hparams": model.default_hparams()}, "n_vocab must be"),
    ],
)
def test_invalid_arguments_are_rejected(sess, sizes, arguments, message):
    with pytest.raises(GPT2Error, match=message):
        sample.sample_sequence(**{"hparams": sizes, "length": 5, **arguments})


def test_errors_outside_of_sample_sequence(sizes, tiny_dir):
    with pytest.raises(GPT2Error, match="there is none: put the code inside `with tf.Graph"):
        model.model(sizes, [[1]])
    with pytest.raises(UsageError, match="there is no hparam 'n_hidden'"):
        sizes.override_from_dict({"n_hidden": 5})
    with pytest.raises(GPT2Error, match="is not in"):
        encoder.get_encoder("355M", tiny_dir)
    strict = encoder.Encoder(encoder.get_encoder(tiny_dir).encoder, [], errors="strict")
    with pytest.raises(UnicodeDecodeError):
        strict.decode([strict.encoder["Ġ"] - 1, strict.encoder["Ã"]])
