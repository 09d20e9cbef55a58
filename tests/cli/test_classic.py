"""Whole transcripts of the two classic commands, in this process."""

import io
import re
import signal
import sys

import pytest

import generate_unconditional_samples
import interactive_conditional_samples
from gpt2 import generate, text_batch
from gpt2.cli import command as cli
from gpt2.cli import prompts, sample_stream
from gpt2.generate import Request
from gpt2.request import Sampling


@pytest.fixture
def run(capsys, monkeypatch, tiny_dir):
    """Return run(command, *flags, stdin=bytes) -> (status, stdout, stderr), which uses the tiny model and seed 1."""

    def run(command, *flags, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="ascii"))
        status = cli.main(command, [f"--model_name={tiny_dir}", "--seed=1", *map(str, flags)])
        return status, *capsys.readouterr()

    return run


unconditional = generate_unconditional_samples.sample_model
interactive = interactive_conditional_samples.interact_model


def texts(model, prompt, length, n, first=0, **settings):
    requests = [Request(prompt, length, Sampling(**settings), seed=1, sample=first + i) for i in range(n)]
    return list(generate.generate(model, requests))


def banner(n):
    return "=" * 40 + f" SAMPLE {n} " + "=" * 40 + "\n"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_unconditional_transcript(run, tiny_model, batch_size):
    status, out, err = run(unconditional, "--nsamples=5", f"--batch_size={batch_size}", "--length=12", "--top_k=40")
    samples = texts(tiny_model, None, 12, 5, top_k=40)
    assert (status, out) == (0, "".join(banner(i) + text + "\n" for i, text in enumerate(samples, 1)))
    assert re.fullmatch(r"tiny on .* \(float32, .*\), seed 1\n", err)


def test_unconditional_length_is_the_window_by_default(run, tiny_model):
    _, out, _ = run(unconditional, "--nsamples=1")
    assert out == banner(1) + texts(tiny_model, None, 32, 1)[0] + "\n"


@pytest.mark.parametrize("length", [0, 1, 100])
def test_unconditional_lengths(run, tiny_model, length):
    _, out, _ = run(unconditional, "--nsamples=2", f"--length={length}")
    assert out == "".join(banner(i) + text + "\n" for i, text in enumerate(texts(tiny_model, None, length, 2), 1))


@pytest.mark.parametrize(
    "settings",
    [
        *({"temperature": t} for t in (0, 0.7, 100)),
        *({"top_k": k} for k in (0, 1, 40, 60000)),
        *({"top_p": p} for p in (0, 0.9, 1)),
        {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2},
    ],
)
def test_sampling_flags_reach_the_samples(run, tiny_model, settings):
    _, out, _ = run(unconditional, "--nsamples=1", "--length=20", *(f"--{k}={v}" for k, v in settings.items()))
    assert out == banner(1) + texts(tiny_model, None, 20, 1, **settings)[0] + "\n"


def test_greedy_two_ways(run):
    transcripts = {run(unconditional, "--nsamples=1", "--length=20", f)[1] for f in ("--temperature=0", "--top_k=1")}
    assert len(transcripts) == 1


def test_too_many_threads_are_rejected(run):
    status, out, err = run(unconditional, "--nsamples=1", "--threads=1000000000")
    assert (status, out, err) == (2, "", "error: threads must be from 1 to 1024, not 1000000000\n")


def test_endless_empty_samples_are_rejected(run):
    status, out, err = run(unconditional, "--length=0")
    assert (status, out) == (2, "") and "nsamples 0 is endless" in err


def test_a_drawn_seed_is_shown_and_repeats_the_run(capsys, tiny_dir):
    flags = [f"--model_name={tiny_dir}", "--nsamples=1", "--length=20"]
    cli.main(unconditional, flags)
    out, err = capsys.readouterr()
    seed = re.search(r"seed (\d+)$", err)[1]
    cli.main(unconditional, [*flags, f"--seed={seed}"])
    assert capsys.readouterr().out == out


def answer(*samples):
    return "".join(banner(i) + text + "\n" for i, text in enumerate(samples, 1)) + "=" * 80 + "\n"


def test_interactive_transcript(run, tiny_model):
    status, out, _ = run(interactive, "--nsamples=2", "--length=9", stdin=b"the cat\n\nthe cat\r\n \n")
    first, again = texts(tiny_model, "the cat", 9, 2), texts(tiny_model, "the cat", 9, 2, first=2)
    space = texts(tiny_model, " ", 9, 2, first=4)
    ask = "Model prompt >>> "
    assert status == 0
    assert out == (
        ask
        + answer(*first)
        + ask
        + "Prompt should not be empty!\n"
        + ask
        + answer(*again)
        + ask
        + answer(*space)
        + ask
        + "\n"
    )
    assert first != again  # the random numbers continue from prompt to prompt


def test_interactive_length_is_half_the_window_by_default(run, tiny_model):
    _, out, _ = run(interactive, "--prompt=the cat")
    assert out == answer(*texts(tiny_model, "the cat", 16, 1))


def test_interactive_without_samples_prints_only_the_separator(run):
    assert run(interactive, "--nsamples=0", stdin=b"a\n")[1] == "Model prompt >>> " + "=" * 80 + "\nModel prompt >>> \n"


def test_the_last_line_needs_no_newline(run, tiny_model):
    _, out, _ = run(interactive, "--length=5", stdin=b"a")
    assert out == "Model prompt >>> " + answer(*texts(tiny_model, "a", 5, 1)) + "Model prompt >>> \n"


def test_one_prompt_of_several_lines(run, tiny_model, tmp_path):
    expected = answer(*texts(tiny_model, "the cat\n\nsat é", 9, 1))
    (tmp_path / "prompt").write_bytes("the cat\n\nsat é\n".encode())
    (tmp_path / "windows").write_bytes(b"the\r\ncat\r\n")
    unchanged = answer(*texts(tiny_model, "the\r\ncat", 9, 1))
    assert run(interactive, "--length=9", f"--prompt_file={tmp_path / 'windows'}")[1] == unchanged
    assert run(interactive, "--length=9", "--prompt=the cat\n\nsat é")[1] == expected
    assert run(interactive, "--length=9", f"--prompt_file={tmp_path / 'prompt'}")[1] == expected
    assert run(interactive, "--length=9", "--prompt_file=-", stdin="the cat\n\nsat é\n".encode())[1] == expected


def test_bytes_that_are_not_utf8_are_replaced_and_counted(run, tiny_model):
    _, out, err = run(interactive, "--length=5", stdin=b"caf\xe9 \xff\nthe\n")
    assert out.startswith("Model prompt >>> " + answer(*texts(tiny_model, "caf\ufffd \ufffd", 5, 1)))
    assert err.count("warning: 2 bytes of the prompt are not utf-8; read as U+FFFD") == 1


def test_another_encoding(run, tiny_model):
    _, out, err = run(interactive, "--length=5", "--encoding=latin-1", stdin=b"caf\xe9\n")
    assert out.startswith("Model prompt >>> " + answer(*texts(tiny_model, "café", 5, 1)))
    assert "warning" not in err


def test_stop(run, tiny_model):
    (text,) = texts(tiny_model, "the", 30, 1)
    _, out, _ = run(interactive, "--length=30", f"--stop={text[5:8]}", "--prompt=the")
    assert out == answer(text.split(text[5:8])[0])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--prompt="], "Prompt should not be empty!"),
        (["--prompt=a", "--prompt_file=b"], "give prompt or prompt_file, not both"),
        (["--encoding=klingon", "--prompt=a"], "encoding must be one that Python knows, such as utf-8, not 'klingon'"),
    ],
)
def test_bad_prompts(run, flags, message):
    status, out, err = run(interactive, *flags)
    assert (status, out) == (2, "") and err == f"error: {message}\n"


def test_a_prompt_file_with_a_byte_order_mark(run, tiny_model, tmp_path):
    expected = answer(*texts(tiny_model, "the cat", 9, 1))
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "prompt").write_bytes("the cat\n".encode(encoding))
        assert run(interactive, "--length=9", f"--prompt_file={tmp_path / 'prompt'}")[1] == expected


def test_a_prompt_that_cannot_be_decoded(run):
    status, _, err = run(interactive, "--encoding=utf-16", stdin=b"the cat\n")
    assert status == 1 and err.endswith("error: the prompt cannot be read: UTF-16 stream does not start with BOM\n")


@pytest.mark.parametrize("flags", [["--prompt_file=/dev/zero"], ["--prompt_file=-"], []])
def test_a_prompt_without_an_end(run, flags, monkeypatch):
    monkeypatch.setattr(prompts, "MAX_PROMPT_BYTES", 1000)
    status, _, err = run(interactive, *flags, stdin=b"a" * 2000)
    assert status == 2 and "error: the prompt is longer than 1,000 bytes" in err


def test_a_missing_prompt_file(run):
    status, _, err = run(interactive, "--prompt_file=nosuch")
    assert (status, err) == (1, "error: the prompt file nosuch cannot be read: No such file or directory\n")


def test_ctrl_c_ends_one_sample(run, tiny_model, monkeypatch):
    original_stream = generate.stream

    def interrupted(model, requests, batch_size=None):
        for n, piece in enumerate(original_stream(model, requests)):
            if n == 3 and requests[0].sample == 0:
                signal.raise_signal(signal.SIGINT)
            yield piece

    monkeypatch.setattr(generate, "stream", interrupted)
    status, out, _ = run(interactive, "--nsamples=2", "--length=9", stdin=b"the\n")
    unfinished, (second,) = texts(tiny_model, "the", 3, 1)[0], texts(tiny_model, "the", 9, 1, first=1)
    assert status == 0
    assert out == "Model prompt >>> " + answer(unfinished, second) + "Model prompt >>> \n"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_command_that_does_not_ask_for_prompts(run, monkeypatch, times):
    def interrupted(model, requests, batch_size=None):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        yield text_batch.TextChunk(0, "never seen", text_batch.FINISH_LENGTH)

    monkeypatch.setattr(generate, "stream", interrupted)
    before = signal.getsignal(signal.SIGINT)
    for flags in ([unconditional, "--nsamples=2"], [unconditional, "--batch_size=2"], [interactive, "--prompt=a"]):
        status, out, _ = run(*flags)
        assert status == 130 and "never seen" not in out
    assert signal.getsignal(signal.SIGINT) is before


def test_banner():
    assert sample_stream.banner(12) + "\n" == banner(12)
