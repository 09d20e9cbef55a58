"""Hugging Face's and PyTorch's files with random damage: a one-line error, bounded memory, and no code is run."""

import contextlib
import json
import os
import random
import shutil
import sys
import tracemalloc

import huggingface_dirs
import pytest
from damage import damage_bytes, damage_json, odd_json_value
from huggingface_dirs import VARIANTS, random_tensors
from torch_files import Call, dumps, state_dict, stream, write_zip_of_pickle

from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import load_vocabulary, open_model_dir

MEMORY = 60_000_000  # bytes; the model has 40,000
FORMS = {
    "safetensors": {"file": "model.safetensors"},
    "zip": {"file": "pytorch_model.bin", "pair": True},
    "stream": {"file": "pytorch_model.bin", "legacy": True},
    "sharded": {"file": "model.safetensors", "shards": 2},
    "sharded bin": {"file": "pytorch_model.bin", "shards": 2, "pair": True},
}
MANY = [200, pytest.param(2000, marks=pytest.mark.slow)]


def read_all(folder):
    """Read everything, and return the hparams and the weights."""
    model = open_model_dir(folder)
    vocabulary = load_vocabulary(model)
    with contextlib.suppress(GPT2Error):  # a damaged vocabulary may lack some bytes
        vocabulary.encode("the cat <|endoftext|> ä")
    return model.hparams, {name: weight.array() for name, weight in model.read().items()}


def replace_value(rng, value):
    """Return the JSON of an object in which one value, at any depth, is replaced by an odd one."""
    target = value
    while (
        isinstance(
            target[key := rng.choice(list(target) if isinstance(target, dict) else range(len(target)))],
            (
                dict,
                list,
            ),
        )
        and target[key]
        and rng.random() < 0.8
    ):
        target = target[key]
    target[key] = "VICTIM"
    return json.dumps(value).replace('"VICTIM"', odd_json_value(rng), 1)


def odd_header(rng, content):
    """Return a safetensors file whose header has the right length and an odd value."""
    size = int.from_bytes(content[:8], "little")
    text = replace_value(rng, json.loads(content[8 : 8 + size])).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def odd_view(rng, view):
    """Return a tensor with a wrong position, size or type."""
    huge = rng.choice([-1, 0, 1, 7, 1 << 31, 1 << 62, 1 << 100])
    changed = rng.choice(
        [
            {"key": rng.choice(["1", "", "../x", "\n", "0" * 300])},
            {"kind": rng.choice(["Double", "Half", "BFloat16", "Bool", "Quantized", ""])},
            {"count": huge},
            {"offset": huge},
            {"shape": (huge,) * rng.randrange(4)},
            {"shape": view.shape[::-1]},
            {"strides": (huge,) * len(view.strides)},
            {"strides": view.strides[::-1]},
            {"strides": (0,) * len(view.strides)},
        ]
    )
    return view._replace(**changed)


def odd_state_dict(rng, views):
    victim = rng.choice(list(views))
    other = rng.choice([None, "x", [], {}, -1, 1 << 90, (1, 2), Call("os system", ("exit 1",)), "view", "view", "view"])
    return views | {victim: odd_view(rng, views[victim]) if other == "view" else other}


def odd_pickle(rng, path, legacy, arrays):
    """Write a file of torch.save with a damaged pickle; everything else in it is intact."""
    views, storages = state_dict(arrays)
    pickled = dumps(odd_state_dict(rng, views)) if rng.random() < 0.5 else damage_bytes(rng, dumps(views))
    if legacy:
        path.write_bytes(stream(pickled, storages))
    else:
        write_zip_of_pickle(path, pickled, storages)


def damage(rng, folder, form, arrays):
    """Damage one of the files in the folder and return its name."""
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.suffix != ".txt"])
    content, kind = path.read_bytes(), rng.randrange(5)
    if kind == 0:
        other = rng.choice(sorted(folder.iterdir()))
        path.write_bytes(other.read_bytes())
    elif kind in (1, 2) and path.suffix == ".json":
        path.write_bytes(damage_json(rng, content) if kind == 1 else replace_value(rng, json.loads(content)).encode())
    elif kind in (1, 2) and path.suffix == ".safetensors":
        path.write_bytes(odd_header(rng, content))
    elif kind in (1, 2) and "-of-" not in path.name:
        odd_pickle(rng, path, FORMS[form].get("legacy", False), arrays)
    else:
        path.write_bytes(damage_bytes(rng, content))
    return path.name


@pytest.mark.parametrize("cases", MANY)
@pytest.mark.parametrize("form", FORMS)
def test_damage_gives_a_one_line_error_or_a_valid_model(tmp_path, form, cases):
    """Most kinds of files have no checksum for changed weights, but anything that is not a model is always noticed."""
    whole = huggingface_dirs.write(tmp_path / "whole", VARIANTS["untied"], **FORMS[form])
    arrays = random_tensors(json.loads((whole / "config.json").read_text()))
    expected, _ = read_all(whole)
    rng, loaded, modules = random.Random(form), 0, set(sys.modules)
    for case in range(cases):
        folder = shutil.copytree(whole, tmp_path / "model")
        name = damage(rng, folder, form, arrays)
        tracemalloc.start()
        try:
            hparams, weights = read_all(folder)
        except GPT2Error as error:
            message = str(error)
            assert "\n" not in message and len(message) < 6000 and str(folder) in message, (case, name, message)
        else:
            loaded += 1
            assert {w: a.shape for w, a in weights.items()} == hparams.weight_shapes(), (case, name)
            assert name == "config.json" or hparams == expected, (case, name)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY, (case, name)
        shutil.rmtree(folder)
    assert loaded < cases * 0.7
    assert os.listdir(tmp_path) == ["whole"]
    assert not {"torch", "transformers", "subprocess32"} & (set(sys.modules) - modules)
