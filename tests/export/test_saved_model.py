"""The SavedModel generates and encodes like the library, in a process that only imports TensorFlow."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_by_one import GREEDY, generate_ids
from variant_dirs import VARIANTS
from variant_dirs import write as write_variant

from gpt2.encoder import Encoder, byte_characters
from gpt2.engine import reference
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.export.bpe_ops import GraphEncoder
from gpt2.export.convert import convert
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.weights import flatten, nest

PROMPTS = ["the cat", "", "größer! It's 東京 🙂\n\n  x", "a" * 60]
PROGRAM = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
prompts, length = json.loads(sys.argv[2]), int(sys.argv[3])
defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
types = {"temperature": tf.float32, "top_k": tf.int32, "top_p": tf.float32, "seed": tf.int64}
def generate(**inputs):
    values = {name: tf.constant(value, types[name]) for name, value in {**defaults, **inputs}.items()}
    result = model.signatures["generate"](text=tf.constant(prompts), length=tf.constant(length), **values)
    return {"ids": result["ids"].numpy().tolist(), "text": [text.decode() for text in result["text"].numpy()]}
out = {"greedy": generate(temperature=0.0), "seeds": [generate(seed=s)["ids"] for s in (1, 1, 2)]}
out["top"] = generate(top_k=1)["ids"]
out["nucleus"] = generate(top_p=0.000001)["ids"]
out["library_modules"] = [name for name in sys.modules if name.startswith("gpt2")]
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def source(tiny_dir):
    return open_model_dir(tiny_dir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("saved") / "1"
    convert(source, folder, "saved_model")
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    loaded = tf.saved_model.load(str(folder))
    signatures = loaded.signatures
    signatures.loaded = loaded  # keeps the variables alive
    return signatures


def test_in_a_process_without_the_library(folder, source):
    vocabulary = load_vocabulary(source)
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(PROMPTS), "40"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    output = json.loads(result.stdout)
    sequences = [TokenSequence(vocabulary.encode(prompt) or [vocabulary.end_of_text], GREEDY) for prompt in PROMPTS]
    expected = generate_ids(load_backend(source, native=False), sequences, 40)
    assert output["greedy"]["ids"] == output["top"] == output["nucleus"] == expected
    assert output["greedy"]["text"] == [vocabulary.decode(ids) for ids in expected]
    assert output["seeds"][0] == output["seeds"][1] != output["seeds"][2]
    assert output["library_modules"] == []


def test_equal_prompts_get_different_texts(signatures):
    values = {"length": np.int32(20), "temperature": np.float32(1), "top_k": np.int32(0), "top_p": np.float32(1)}
    values = {name: tf.constant(value) for name, value in values.items()}
    ids = signatures["generate"](text=tf.constant(["x", "x"]), seed=tf.constant(3, tf.int64), **values)["ids"].numpy()
    assert ids[0].tolist() != ids[1].tolist()


def test_scores(signatures, source):
    weights = nest((name, weight.array()) for name, weight in source.read().items())
    ids = np.random.default_rng(1).integers(source.hparams.n_vocab, size=(2, 32)).astype(np.int32)
    result = signatures["score"](ids=tf.constant(ids))["logprobs"].numpy()
    assert result.shape == (2, 31)
    for row, logprobs in zip(ids, result):
        logits = reference.logits(weights, source.hparams, row)[:-1]
        expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(logprobs, expected[np.arange(31), row[1:]], atol=1e-4)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"length": np.int32(-1)}, "length must be at least 0"),
        ({"temperature": np.float32(-1)}, "temperature must be at least 0"),
        ({"top_k": np.int32(-1)}, "top_k must be at least 0"),
        ({"top_p": np.float32(2)}, "top_p must be from 0 to 1"),
    ],
)
def test_invalid_inputs_are_rejected(signatures, inputs, message):
    values = {"length": np.int32(2), "temperature": np.float32(1), "top_k": np.int32(0), "top_p": np.float32(1)}
    values = {name: tf.constant(value) for name, value in {**values, "seed": np.int64(0), **inputs}.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["generate"](text=tf.constant(["x"]), **values)
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids must be from 0 to"):
        signatures["score"](ids=tf.constant([[0, 99999]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids must be at most 32"):
        signatures["score"](ids=tf.zeros([1, 33], tf.int32))


def test_optional_inputs_have_defaults(folder):
    """TensorFlow Serving feeds only the given inputs, by the tensor names in the signature."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        signature_defs = v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        for name in ("generate", "serving_default"):
            signature = signature_defs[name]
            assert set(signature.inputs) == {"text", "length", "temperature", "top_k", "top_p", "seed"}
            assert set(signature.outputs) == {"text", "ids"}
            ids = session.run(signature.outputs["ids"].name, {signature.inputs["text"].name: ["the"]})
            assert ids.shape == (1, 16)  # half a window


def test_variants(tmp_path):
    """A model with all variants at the same time; `convert` compares the export with it."""
    changes = {name: value for variant in VARIANTS.values() for name, value in variant.items()}
    convert(write_variant(tmp_path / "source", **changes), tmp_path / "saved", "saved_model")
    assert (tmp_path / "saved/saved_model.pb").is_file()


@pytest.fixture(scope="module")
def graph_encoder(source):
    return compile_encoder(load_vocabulary(source))


def compile_encoder(encoder: Encoder) -> tuple[Encoder, Callable[[str], list[int]]]:
    """Return an encoder, and the function that computes the same in a graph."""
    function = tf.function(GraphEncoder(encoder), input_signature=[tf.TensorSpec([], tf.string)])
    return encoder, lambda text: function(tf.constant(text.encode("utf-8", "surrogatepass"))).numpy().tolist()


ODD = [
    "'s",
    "'re",
    "it's",
    "'S",
    "''s",
    " 's",
    "\n's",
    "s'll'd",
    "'st",
    "'lls",
    "\t",
    "\u3000",
    "\x1c",
    "\ufeffx",
    "\0",
]
pieces = st.one_of(
    st.sampled_from([*ODD, " ", "  ", "\n", "the", " cat", "sat", "12", "½", "é", "e\u0301", "🙂", "\u200b", "\xa0"]),
    st.text(max_size=3),
)
texts = st.lists(pieces, max_size=12).map("".join)
SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(texts)
def test_any_text(graph_encoder, text):
    encoder, function = graph_encoder
    assert function(text) == encoder.encode(text)


@SETTINGS
@given(texts)
def test_any_text_in_the_vocabulary_of_gpt2(gpt2_graph_encoder, text):
    encoder, function = gpt2_graph_encoder
    assert function(text) == encoder.encode(text)


@pytest.fixture(scope="module")
def gpt2_graph_encoder(encoder):
    return compile_encoder(encoder)


def test_long_texts(gpt2_graph_encoder):
    encoder, function = gpt2_graph_encoder
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz     '\n.,"
    for text in (
        "a" * 10_000,
        " " * 5000,
        "ab" * 3000,
        "".join(rng.choice(letters) for _ in range(20_000)),
        "'s" * 999,
    ):
        assert function(text) == encoder.encode(text)


def test_every_character(gpt2_graph_encoder):
    """Each character stands between letters, whose pieces it joins or separates."""
    encoder, function = gpt2_graph_encoder
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    for start in range(0, len(characters), 1 << 16):
        text = "".join(f"a{character} " for character in characters[start : start + (1 << 16) : 7])
        assert function(text) == encoder.encode(text)


def test_merges_of_merged_symbols():
    """Ranks do not ascend with the length of the symbols, and symbols repeat."""
    merges = [("b", "a"), ("a", "a"), ("aa", "aa"), ("a", "ba"), ("aaaa", "a")]
    symbols = [*byte_characters().values(), *("".join(pair) for pair in merges)]
    encoder, function = compile_encoder(Encoder({piece: i for i, piece in enumerate(symbols)}, merges))
    rng = random.Random(2)
    for _ in range(100):
        text = "".join(rng.choice("aaab ") for _ in range(rng.randrange(30)))
        assert function(text) == encoder.encode(text), text


def test_the_graph_holds_no_weights(folder, source):
    """All weights are in the variables, so that the graph stays small for any model size."""
    shapes = dict(tf.train.list_variables(str(folder / "variables/variables")))
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "weights" in name) == source.hparams.n_params
    assert len(dict(flatten(nest((name, 0) for name in source.hparams.weight_shapes())))) <= len(shapes)
