"""Hugging Face's and PyTorch's files damaged in thousands of ways: one line each, bounded memory, nothing run."""

import contextlib
import json
import os
import random
import shutil
import sys
import tracemalloc

import huggingface_dirs
import pytest
from damage import odd_json, odd_value, some_bytes
from huggingface_dirs import VARIANTS, arrays_of
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


def opened(folder):
    """All that the files say: hparams, weights and vocabulary."""
    found = open_model_dir(folder)
    vocabulary = load_vocabulary(found)
    with contextlib.suppress(GPT2Error):  # such a vocabulary need not have all bytes
        vocabulary.encode("the cat <|endoftext|> ä")
    return found.hparams, {name: weight.array() for name, weight in found.read().items()}


def lie(rng, said):
    """One of an object's values, or of those in it, is another one now."""
    target = said
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
    return json.dumps(said).replace('"VICTIM"', odd_value(rng), 1)


def odd_header(rng, content):
    """A header of safetensors of the right length that lies."""
    size = int.from_bytes(content[:8], "little")
    text = lie(rng, json.loads(content[8 : 8 + size])).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def odd_part(rng, part):
    """A tensor that is not where it says, or what."""
    huge = rng.choice([-1, 0, 1, 7, 1 << 31, 1 << 62, 1 << 100])
    changed = rng.choice(
        [
            {"key": rng.choice(["1", "", "../x", "\n", "0" * 300])},
            {"kind": rng.choice(["Double", "Half", "BFloat16", "Bool", "Quantized", ""])},
            {"count": huge},
            {"offset": huge},
            {"shape": (huge,) * rng.randrange(4)},
            {"shape": part.shape[::-1]},
            {"strides": (huge,) * len(part.strides)},
            {"strides": part.strides[::-1]},
            {"strides": (0,) * len(part.strides)},
        ]
    )
    return part._replace(**changed)


def odd_state_dict(rng, parts):
    victim = rng.choice(list(parts))
    other = rng.choice([None, "x", [], {}, -1, 1 << 90, (1, 2), Call("os system", ("exit 1",)), "part", "part", "part"])
    return parts | {victim: odd_part(rng, parts[victim]) if other == "part" else other}


def odd_pickle(rng, path, legacy, arrays):
    """A file of torch.save whose pickle has been changed, and all around it is right."""
    parts, storages = state_dict(arrays)
    described = dumps(odd_state_dict(rng, parts)) if rng.random() < 0.5 else some_bytes(rng, dumps(parts))
    if legacy:
        path.write_bytes(stream(described, storages))
    else:
        write_zip_of_pickle(path, described, storages)


def damage(rng, folder, form, arrays):
    """One of the folder's files is another one now; returns its name."""
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.suffix != ".txt"])
    content, kind = path.read_bytes(), rng.randrange(5)
    if kind == 0:
        other = rng.choice(sorted(folder.iterdir()))
        path.write_bytes(other.read_bytes())
    elif kind in (1, 2) and path.suffix == ".json":
        path.write_bytes(odd_json(rng, content) if kind == 1 else lie(rng, json.loads(content)).encode())
    elif kind in (1, 2) and path.suffix == ".safetensors":
        path.write_bytes(odd_header(rng, content))
    elif kind in (1, 2) and "-of-" not in path.name:
        odd_pickle(rng, path, FORMS[form].get("legacy", False), arrays)
    else:
        path.write_bytes(some_bytes(rng, content))
    return path.name


@pytest.mark.parametrize("cases", MANY)
@pytest.mark.parametrize("form", FORMS)
def test_damage_is_said_in_one_line_or_is_a_model(tmp_path, form, cases):
    """Of most kinds of files nothing tells a weight that changed; what is not a model is always noticed."""
    whole = huggingface_dirs.write(tmp_path / "whole", VARIANTS["untied"], **FORMS[form])
    arrays = arrays_of(json.loads((whole / "config.json").read_text()))
    expected, _ = opened(whole)
    rng, loaded, modules = random.Random(form), 0, set(sys.modules)
    for case in range(cases):
        folder = shutil.copytree(whole, tmp_path / "model")
        name = damage(rng, folder, form, arrays)
        tracemalloc.start()
        try:
            hparams, weights = opened(folder)
        except GPT2Error as error:
            said = str(error)
            assert "\n" not in said and len(said) < 6000 and str(folder) in said, (case, name, said)
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
