"""What is written, run by the programs that it is for. GPT2_PEERS names a Python that has transformers, PyTorch and
llama-cpp-python; GPT2_PEERS_MODEL, if given, a model directory to take instead of the tiny one:

GPT2_PEERS=~/peers/bin/python GPT2_PEERS_MODEL=models/124M pytest tests/export/test_peers.py -s
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from one_by_one import GREEDY, take
from variant_dirs import VARIANTS
from variant_dirs import write as write_variant

from gpt2.engine.batch import Batch
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.export import huggingface
from gpt2.export.convert import convert
from gpt2.export.options import ExportOptions
from gpt2.formats.model_dir import load_vocabulary, open_model_dir

HERE = Path(__file__).parent
PROMPTS = ["the cat", "größer! It's 東京 🙂", "a\n\n  b"]
TEXTS = [*PROMPTS, " it's we'll 12 3.5\t\x1c x", "Hello<|endoftext|>world", "a" * 40, "   ", "'S'\u3000\xa0é"]


@pytest.fixture(scope="module")
def peers():
    if "GPT2_PEERS" not in os.environ:
        pytest.skip("GPT2_PEERS names no Python that has the peers")

    def ask(program, path, request):
        line = [os.environ["GPT2_PEERS"], str(HERE / program), str(path), json.dumps(request)]
        result = subprocess.run(line, capture_output=True, text=True, timeout=1200)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return ask


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    if "GPT2_PEERS_MODEL" in os.environ:
        return open_model_dir(Path(os.environ["GPT2_PEERS_MODEL"]))
    return write_variant(tmp_path_factory.mktemp("peers") / "source", n_ctx=128)


def log_probabilities(model, ids):
    """Of each id but the first, by our own backend."""
    with Batch(load_backend(model)) as batch:
        number = batch.add(TokenSequence(ids, GREEDY, echo=True))
        while not batch.step():
            pass
        return np.array([choice.logprob for choice in batch.prompt_choices(number) if choice])


def compare_with_transformers(peers, model, tmp_path, options, tolerance):
    vocabulary, target = load_vocabulary(model), tmp_path / "target"
    target.mkdir()
    huggingface.write(model, vocabulary, target, options)
    found = peers("peer_transformers.py", target, {"texts": TEXTS, "logits": str(tmp_path / "logits.npz")})
    assert found["missing"] in ([], ["lm_head.weight"]) and found["end"] == "<|endoftext|>"
    logits, off = np.load(tmp_path / "logits.npz"), 0.0
    for number, (text, theirs) in enumerate(zip(TEXTS, found["texts"])):
        ids = vocabulary.encode(text, special=True)
        assert theirs["ids"] == ids and theirs["text"] == text
        ids = ids[: model.hparams.n_ctx]
        if len(ids) > 1:
            lines = logits[str(number)].astype(np.float64)
            every = lines - np.log(np.exp(lines).sum(-1, keepdims=True))
            ours = log_probabilities(model, ids)
            off = max(off, np.abs(every[np.arange(len(ids) - 1), ids[1:]] - ours).max())
    print(f"\ntransformers, {options}: log-probabilities differ by at most {off:.2g}")
    assert off < tolerance


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
    """Greedy ids: all of them in float32; how many, before the first that differs, in narrow types."""
    path = tmp_path / "model.gguf"
    convert(source, path, "gguf", ExportOptions(dtype))
    found, vocabulary = open_model_dir(path), load_vocabulary(source)
    length = min(60, source.hparams.n_ctx - max(len(vocabulary.encode(prompt)) for prompt in PROMPTS))
    theirs = peers("peer_llama.py", path, {"prompts": PROMPTS, "length": length})
    ours = take(load_backend(found), [TokenSequence(vocabulary.encode(prompt), GREEDY) for prompt in PROMPTS], length)
    for prompt, answer, ids in zip(PROMPTS, theirs, ours):
        assert answer["ids"] == vocabulary.encode(prompt)
        same = next((n for n, (one, other) in enumerate(zip(answer["new"], ids)) if one != other), length)
        print(f"\nllama.cpp, {dtype}: {same} of {length} greedy ids are the same")
        assert same == length or dtype != "float32"
        if same == length:
            assert answer["text"] == vocabulary.decode(ids)


@pytest.mark.parametrize("variant", ["untied", "epsilon", "inner"])
def test_llama_cpp_on_variants(peers, tmp_path, variant):
    model = write_variant(tmp_path / "source", n_ctx=128, **VARIANTS[variant])
    test_llama_cpp(peers, model, tmp_path, "float32")
