"""Exported models, run by the programs that they are exported for.

GPT2_PEERS is the path of a Python that has transformers, PyTorch and llama-cpp-python. GPT2_PEERS_MODEL is an optional
model directory to use instead of the tiny model:

    GPT2_PEERS=~/peers/bin/python GPT2_PEERS_MODEL=models/124M pytest tests/export/test_peers.py -s
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from one_by_one import GREEDY, generate_ids
from variant_dirs import VARIANTS
from variant_dirs import write as write_variant

from gpt2.engine.batch import Batch
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.export import huggingface
from gpt2.export.convert import convert
from gpt2.export.options import ExportOptions
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import load_vocabulary, open_model_dir

HERE = Path(__file__).parent
PROMPTS = ["the cat", "größer! It's 東京 🙂", "a\n\n  b"]
TEXTS = [*PROMPTS, " it's we'll 12 3.5\t\x1c x", "Hello<|endoftext|>world", "a" * 40, "   ", "'S'\u3000\xa0é"]


@pytest.fixture(scope="module")
def peers():
    if "GPT2_PEERS" not in os.environ:
        pytest.skip("GPT2_PEERS is not set to a Python that has the other programs")

    def run(program, path, request):
        command = [os.environ["GPT2_PEERS"], str(HERE / program), str(path), json.dumps(request)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    if "GPT2_PEERS_MODEL" in os.environ:
        return open_model_dir(Path(os.environ["GPT2_PEERS_MODEL"]))
    return write_variant(tmp_path_factory.mktemp("peers") / "source", n_ctx=128)


def our_logprobs(model: ModelDir, ids: list[int]) -> np.ndarray:
    """Return the log-probability of each id except the first, by our own backend."""
    with Batch(load_backend(model)) as batch:
        number = batch.add(TokenSequence(ids, GREEDY, echo=True))
        while not batch.step():
            pass
        return np.array([choice.logprob for choice in batch.prompt_choices(number) if choice])


def compare_with_transformers(peers, model, tmp_path, options, tolerance):
    vocabulary, target = load_vocabulary(model), tmp_path / "target"
    target.mkdir()
    huggingface.write(model, vocabulary, target, options)
    results = peers("peer_transformers.py", target, {"texts": TEXTS, "logits": str(tmp_path / "logits.npz")})
    assert results["missing"] in ([], ["lm_head.weight"]) and results["end"] == "<|endoftext|>"
    logits = np.load(tmp_path / "logits.npz")
    max_difference = 0.0
    for number, (text, theirs) in enumerate(zip(TEXTS, results["texts"])):
        ids = vocabulary.encode(text, special=True)
        assert theirs["ids"] == ids and theirs["text"] == text
        ids = ids[: model.hparams.n_ctx]
        if len(ids) > 1:
            rows = logits[str(number)].astype(np.float64)
            logprobs = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
            difference = np.abs(logprobs[np.arange(len(ids) - 1), ids[1:]] - our_logprobs(model, ids)).max()
            max_difference = max(max_difference, difference)
    print(f"\ntransformers, {options}: log-probabilities differ by at most {max_difference:.2g}")
    assert max_difference < tolerance


@pytest.mark.parametrize(
    "options, tolerance",
    [
        (ExportOptions(), 1e-4),
        (ExportOptions(shard_size=30_000), 1e-4),
        (ExportOptions("bfloat16"), 0.2),
        (ExportOptions("float16"), 0.02),
    ],
)
def test_transformers(peers, source, tmp_path, options, tolerance):
    compare_with_transformers(peers, source, tmp_path, options, tolerance)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "narrow"])
def test_transformers_on_variants(peers, tmp_path, variant):
    model = write_variant(tmp_path / "source", n_ctx=128, **VARIANTS[variant])
    compare_with_transformers(peers, model, tmp_path, ExportOptions(), 1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "q8_0"])
def test_llama_cpp(peers, source, tmp_path, dtype):
    """Greedy ids are all equal in float32; for other types, the length of the common prefix is printed."""
    path = tmp_path / "model.gguf"
    convert(source, path, "gguf", ExportOptions(dtype))
    exported = open_model_dir(path)
    vocabulary = load_vocabulary(source)
    length = min(60, source.hparams.n_ctx - max(len(vocabulary.encode(prompt)) for prompt in PROMPTS))
    theirs = peers("peer_llama.py", path, {"prompts": PROMPTS, "length": length})
    ours = generate_ids(
        load_backend(exported), [TokenSequence(vocabulary.encode(prompt), GREEDY) for prompt in PROMPTS], length
    )
    for prompt, answer, ids in zip(PROMPTS, theirs, ours):
        assert answer["ids"] == vocabulary.encode(prompt)
        n_equal = next((n for n, (a, b) in enumerate(zip(answer["new"], ids)) if a != b), length)
        print(f"\nllama.cpp, {dtype}: {n_equal} of {length} greedy ids are the same")
        assert n_equal == length or dtype != "float32"
        if n_equal == length:
            assert answer["text"] == vocabulary.decode(ids)


@pytest.mark.parametrize("variant", ["untied", "epsilon", "inner"])
def test_llama_cpp_on_variants(peers, tmp_path, variant):
    model = write_variant(tmp_path / "source", n_ctx=128, **VARIANTS[variant])
    test_llama_cpp(peers, model, tmp_path, "float32")
