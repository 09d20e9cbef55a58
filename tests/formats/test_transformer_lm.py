"""Model directories of transformer-lm: both forms of their weights, and errors for invalid ones."""

import json
import random
import shutil
import tracemalloc

import numpy as np
import pytest
import tiny_lm

from gpt2.engine import reference as numpy_gpt2
from gpt2.engine.load import load_backend
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import find_model, is_model, load_vocabulary
from gpt2.formats.transformer_lm import directory
from gpt2.formats.weights import Layout, flatten, nest

MEMORY = 8_000_000  # bytes; the files have about 200,000


@pytest.fixture
def folder(tmp_path, lm_dir):
    return shutil.copytree(lm_dir, tmp_path / "de")


def arrays(directory):
    """Return the weights in OpenAI's layout."""
    return {
        name: weight.array().T if weight.layout is Layout.OUT_IN and name.endswith("/w") else weight.array()
        for name, weight in directory.read().items()
    }


@pytest.mark.parametrize("hparams", [tiny_lm.HPARAMS, tiny_lm.WIDER])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix, progress_key", [("", "seen_tokens"), ("module.", "step")])
def test_every_form_gives_the_same_weights(tmp_path, sp_model, hparams, legacy, prefix, progress_key):
    folder = tiny_lm.write_model(tmp_path / "de", sp_model, hparams, legacy, prefix=prefix, progress_key=progress_key)
    model = find_model(str(folder))
    assert is_model(folder) and model.hparams == hparams and load_vocabulary(model).n_vocab == tiny_lm.PIECES
    expected = dict(flatten(numpy_gpt2.random_weights(hparams, seed=1)))
    read = arrays(model)
    assert list(read) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)
    assert directory.read_params(folder)[progress_key] == 1234 and directory.read_params(folder)["lr"] == 1e-3


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("hparams", [tiny_lm.HPARAMS, tiny_lm.WIDER])
def test_logits(tmp_path, sp_model, request, hparams, native):
    if native:
        request.getfixturevalue("native")
    model = find_model(str(tiny_lm.write_model(tmp_path / "de", sp_model, hparams)))
    backend = load_backend(model, native=native)
    from gpt2.text_batch import Model
    from lm import scores

    ids = [5, 9, 2, 7, 100, 1, 1, 30]
    expected = numpy_gpt2.logits(nest(arrays(model).items()), hparams, ids)
    logs = scores.all_log_probs(Model(load_vocabulary(model), backend), ids)
    expected -= np.log(np.exp(expected).sum(-1, keepdims=True))
    np.testing.assert_allclose(logs, expected, atol=1e-4)


def change_hparams(folder, **changes):
    path = folder / "params.json"
    params = json.loads(path.read_text())
    params["hparams"] |= changes
    params["hparams"] = {name: value for name, value in params["hparams"].items() if value is not ...}
    path.write_text(json.dumps(params))


def test_n_hidden_may_be_left_out(folder):
    change_hparams(folder, n_hidden=...)
    assert find_model(str(folder)).hparams == tiny_lm.HPARAMS


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"dropout": 0.1, "n_inner": 5},
            "params.json: transformer-lm's models do not have dropout, n_inner; its hparams may have n_vocab,",
        ),
        ({"n_ctx": ...}, "params.json is damaged: its hparams lack n_ctx"),
        ({"n_embed": ..., "n_hidden": ...}, "its hparams lack n_hidden, n_embed"),
        ({"n_head": 5}, r"params.json: n_embd \(32\) must be a multiple of n_head \(5\)"),
        ({"n_layer": "2"}, "params.json: n_layer must be a whole number"),
        ({"n_layer": 3}, r"model.pt lacks 12 of 40 weights of .*: blocks.2.ln_1.g, blocks.2.ln_1.b, "),
        ({"n_layer": 1}, r"has weights that transformer-lm's model does not have: blocks.1.attn.c_attn.bias, "),
        ({"n_ctx": 33}, r"model.pt: wpe.weight has the shape \[32, 32\], but params.json needs \[33, 32\]"),
        ({"n_vocab": 121}, r"wte.weight has the shape \[120, 32\]"),
        ({"n_hidden": 64}, "model.pt (lacks|is cut off)"),
        ({"n_vocab": 10**9}, "is cut off or belongs to another model: it has .* bytes, but params.json needs at least"),
    ],
)
def test_wrong_hparams_are_rejected(folder, changes, message):
    change_hparams(folder, **changes)
    with pytest.raises(GPT2Error, match=message):
        find_model(str(folder)).read()


@pytest.mark.parametrize("name", ["model.pt", "sp.model"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(GPT2Error, match=f"de lacks {name}; fetch or copy it again"):
        find_model(str(folder))


def test_a_pickled_module_is_rejected(folder):
    (folder / "model.pkl").write_bytes(b"anything")
    find_model(str(folder)).read()
    (folder / "model.pt").unlink()
    with pytest.raises(GPT2Error, match="de has model.pkl, a pickled module, but no model.pt"):
        find_model(str(folder))


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"hparams": 5}', b"{", b"\xff"])
def test_damaged_params_are_rejected(folder, content):
    (folder / "params.json").write_bytes(content)
    with pytest.raises(GPT2Error, match="params.json is damaged: "):
        find_model(str(folder))


def test_a_vocabulary_of_another_model(folder, tmp_path):
    change_hparams(folder, n_vocab=100)
    with pytest.raises(GPT2Error, match="the vocabulary has 120 ids"):
        load_vocabulary(find_model(str(folder)))


def damaged(rng, content, is_text):
    changed = bytearray(content)
    index = rng.randrange(len(changed))
    match rng.randrange(5):
        case 0:
            changed[index] ^= 1 << rng.randrange(8)
        case 1:
            del changed[index:]
        case 2:
            del changed[index : index + rng.choice([1, 8, 64])]
        case 3:
            changed[index:index] = rng.randbytes(rng.choice([1, 8, 64]))
        case 4:  # in the pickle, which comes first in both forms
            index = rng.randrange(min(len(changed), 3000))
            changed[index] = rng.choice(b'0"{]c.RQt}u\x85\x00\xff') if is_text else rng.randrange(256)
    return bytes(changed)


def try_many(folder, legacy, first, cases):
    """Check that a damaged file gives a one-line error, or weights with the shapes of the model."""
    contents = {name: (folder / name).read_bytes() for name in ("params.json", "model.pt")}
    rejected = 0
    for seed in range(first, first + cases):
        rng = random.Random(seed)
        name = rng.choice(["params.json", "model.pt", "model.pt"])
        (folder / name).write_bytes(damaged(rng, contents[name], name == "params.json"))
        tracemalloc.start()
        try:
            model = find_model(str(folder))
            for weight, array in arrays(model).items():
                assert array.shape == model.hparams.weight_shapes()[weight]
        except GPT2Error as error:
            rejected += 1
            assert "\n" not in str(error) and str(folder) in str(error) and len(str(error)) < 2000, (seed, error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY, seed
        (folder / name).write_bytes(contents[name])
    return rejected


@pytest.mark.parametrize("legacy", [False, True])
def test_damage(tmp_path, sp_model, legacy):
    folder = tiny_lm.write_model(tmp_path / "de", sp_model, legacy=legacy)
    assert try_many(folder, legacy, 0, 60) > 20


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_much_damage(tmp_path, sp_model, legacy):
    folder = tiny_lm.write_model(tmp_path / "de", sp_model, tiny_lm.WIDER, legacy)
    assert try_many(folder, legacy, 1000, 2000) > 700
