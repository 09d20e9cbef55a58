"""Added tokens and end tokens of a Hugging Face folder in every command, in the server and in a fine-tuned run."""

import json
import shutil
from pathlib import Path

import bulk_jobs
import httpx
import huggingface_dirs
import numpy as np
import pytest
from added_token_dirs import N_PIECES, ROLES, end
from served import serving

import encode
import interactive_conditional_samples
import train
from gpt2 import generate
from gpt2.cli import command
from gpt2.evaluation.scores import Protocol, score
from gpt2.formats.model_dir import find_vocabulary, load_vocabulary, open_model_dir
from gpt2.generate import Request, completions
from gpt2.openai.encoder import get_encoder
from gpt2.request import Sampling
from scripts import score as score_command

END = N_PIECES - 1
USER, ASSISTANT, SEP, PAD = range(N_PIECES, N_PIECES + 4)
ENDINGS = [END, ASSISTANT, 198]  # 198 is a line end
PROMPT = "<|user|>the cat<sep> the[PAD]"
IDS = [USER, 83, 71, 68, 261, SEP, 258, PAD]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "model"
    huggingface_dirs.write(path, {"vocab_size": N_PIECES + 4})
    (path / "tokenizer.json").write_text(json.dumps(huggingface_dirs.tokenizer_json(added_tokens=[end(), *ROLES])))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDINGS}))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return generate.load(str(folder))


def text_after(model, prompt, length=6):
    return next(generate.generate(model, [Request(prompt, length, Sampling(temperature=0))]))


def always(token):
    """Return sampling that always chooses a token."""
    return Sampling(temperature=0, logit_bias={token: 1000.0})


@pytest.mark.parametrize("token", [*ENDINGS, USER, SEP])
def test_every_listed_token_ends_a_text(model, token):
    """Its text is not part of the completion, unless end tokens are ignored."""
    (result,) = completions(model, [Request(PROMPT, 3, always(token), end_of_text=True)])
    text = model.encoder.token_text(token)
    ends = token in ENDINGS
    assert (result.text, result.finish_reason) == (("", "stop") if ends else (text * 3, "length"))
    (result,) = completions(model, [Request(PROMPT, 3, always(token))])
    assert (result.text, result.finish_reason) == (text * 3, "length")


def test_prompts_and_scores_of_the_library(model):
    assert model.encoder.encode(PROMPT) == IDS
    assert text_after(model, PROMPT) == text_after(model, IDS)
    (scored,) = score(model, [PROMPT], Protocol(16, 16, END))
    assert scored.ids.tolist() == IDS


def test_openai_s_module(folder):
    encoder = get_encoder(str(folder))
    assert encoder.encode(PROMPT) == IDS and encoder.decode(IDS) == PROMPT


def test_the_interactive_command(folder, model, capsys):
    argv = ["--model_name", str(folder), "--prompt", PROMPT, "--length", "6", "--temperature", "0"]
    assert command.main(interactive_conditional_samples.interact_model, argv) == 0
    assert text_after(model, IDS) in capsys.readouterr().out


def test_the_score_command(folder, capsys):
    assert command.main(score_command.score_text, ["--model_name", str(folder), "--text", PROMPT]) == 0
    out = capsys.readouterr().out
    assert all(out.count(marker) == 1 for marker in ("<|user|>", "<sep>", "[PAD]"))


def write_model_that_always_chooses(folder, token):
    """Write weights whose logits do not depend on the prompt."""
    config = json.loads((folder / "config.json").read_text())
    arrays = huggingface_dirs.random_tensors(config)
    arrays["transformer.ln_f.weight"][:] = 0
    arrays["transformer.ln_f.bias"][:] = np.eye(16)[0]
    arrays["transformer.wte.weight"][:, 0] = np.arange(N_PIECES + 4) == token
    huggingface_dirs.write_file(folder / "model.safetensors", arrays)


@pytest.mark.parametrize("token", [*ENDINGS, USER])
def test_the_bulk_command(folder, model, tmp_path, capsys, token):
    shutil.copytree(folder, tmp_path / "model")
    write_model_that_always_chooses(tmp_path / "model", token)
    rows = [{"prompt": PROMPT}, {"prompt": IDS}, {"prompt": PROMPT, "ignore_eos": True}]
    prompts = bulk_jobs.write_rows(tmp_path / "prompts.jsonl", rows)
    flags = ["--model_name", str(tmp_path / "model"), "--length=3", "--temperature=0", "--logprobs=1"]
    if bulk_jobs.run(prompts, tmp_path / "out.jsonl", *flags):
        pytest.fail(capsys.readouterr().err)
    text = model.encoder.token_text(token)
    expected = ("", "stop") if token in ENDINGS else (text * 3, "length")
    entries = sorted(bulk_jobs.entries(tmp_path / "out.jsonl"), key=lambda entry: entry["id"])
    assert [(entry["text"], entry["finish_reason"]) for entry in entries] == [expected, expected, (text * 3, "length")]


def test_the_server(model):
    with serving({"chat": model}) as url, httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post("/tokenize", json={"model": "chat", "prompt": PROMPT}).json()
        assert answer["tokens"] == IDS and answer["pieces"][0] == "<|user|>"
        assert client.post("/detokenize", json={"model": "chat", "tokens": IDS}).json()["prompt"] == PROMPT
        for token in (*ENDINGS, USER):
            body = {"model": "chat", "prompt": PROMPT, "max_tokens": 3, "logit_bias": {str(token): 100}}
            answer = client.post("/v1/completions", json={**body, "temperature": 0}).json()
            assert answer["usage"]["prompt_tokens"] == len(IDS)
            choice = answer["choices"][0]
            expected = ("", "stop") if token in ENDINGS else ("<|user|>" * 3, "length")
            assert (choice["text"], choice["finish_reason"]) == expected


def test_training_data_and_the_run(folder, tmp_path, monkeypatch, capsys):
    """The ids of training data are those of prompts, and the run keeps tokens and end tokens without the base model."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(PROMPT + "<|endoftext|>the cat" * 20)
    assert command.main(encode.encode_text, ["text.txt", "ids.npy", "--model_name", str(folder)]) == 0
    ids = np.load("ids.npy").tolist()
    assert ids[1:9] == IDS and ids.count(END) == 22
    flags = ["--dataset", "text.txt", "--model_name", str(folder), "--steps", "1", "--sample_every", "0"]
    assert command.main(train.train, flags) == 0, capsys.readouterr().err
    names = {path.name for path in Path("checkpoint/run1").iterdir()}
    assert names >= {"encoder.json", "vocab.bpe", "special_tokens.json"}
    for vocabulary in (load_vocabulary(open_model_dir(Path("checkpoint/run1"))), find_vocabulary("checkpoint/run1")):
        assert vocabulary.encode(PROMPT) == IDS and vocabulary.ending_ids == set(ENDINGS)
    assert command.main(train.train, flags) == 0, capsys.readouterr().err  # resumes


def test_openai_s_vocabulary_keeps_markers_as_ordinary_text(tiny_dir):
    """Ids are the way to request its end-of-text token in a prompt."""
    model = generate.load(str(tiny_dir))
    encoder = model.encoder
    for text in ("<|endoftext|>", "a<|endoftext|>b", "<|user|>", "[PAD]"):
        assert encoder.end_of_text not in encoder.encode(text) and encoder.decode(encoder.encode(text)) == text
    assert encoder.ending_ids == {encoder.end_of_text}
    assert text_after(model, None) == text_after(model, [encoder.end_of_text])
