"""Generation of texts that are printed, written to files or returned, as in the old package."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.files import atomic_write
from gpt2.generate import generate as generate_texts
from gpt2.request import Request, Sampling, require_integer
from gpt2.training.settings.settings import LATEST
from gpt_2_simple.session import Session, find_model_dir, require_session, run_eagerly

DEFAULT_LENGTH = 1023  # default of length and sample_length: the tokens that fit GPT-2's window after a start token


@run_eagerly
def generate(
    sess: Session,
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    sample_dir: str = "samples",
    return_as_list: bool = False,
    truncate: str | None = None,
    destination_path: str | None = None,
    sample_delim: str = "=" * 20 + "\n",
    prefix: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int = 1,
    length: int = 1023,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 0.0,
    include_prefix: bool = True,
    *,
    repetition_penalty: float = 1.0,
) -> list[str] | None:
    """Generate texts with the session's model, and print, write or return them.

    Args:
        sess: The session. If it has no model, the model of `run_name` or `model_name` is loaded.
        run_name: Name of the run to load.
        checkpoint_dir: Folder that contains the runs.
        model_name: Name of a pretrained model to load instead of a run.
        model_dir: Folder that contains the pretrained models.
        sample_dir: Ignored.
        return_as_list: Whether to return the texts instead of printing them.
        truncate: Text before which each text ends; generation stops there.
        destination_path: File to write the texts to, instead of printing them.
        sample_delim: Line after each text if there are several.
        prefix: Beginning of each text.
        seed: Seed of the random numbers; drawn if None.
        nsamples: Number of texts.
        batch_size: Number of texts generated together; it need not divide `nsamples`.
        length: Number of new tokens; the window slides beyond n_ctx. The default, 1023, includes the prefix.
        temperature: Divides the logits; 0 is greedy.
        top_k: Sample from the k most likely tokens; 0 means all.
        top_p: Sample from the most likely tokens whose probabilities reach p; above 0 it replaces `top_k`.
        include_prefix: Whether to start the texts with the prefix.
        repetition_penalty: Penalty for tokens already in the text; 1 turns it off.

    Returns:
        The texts if `return_as_list` is true, else None.

    Raises:
        GPT2Error: If the model is missing or damaged, or if the file cannot be written.
        UsageError: If a value is not allowed.
    """
    if require_session(sess).directory is None:
        sess.set_model(find_model_dir(LATEST, run_name, checkpoint_dir, model_name, model_dir))
    sampling = Sampling(temperature, 0 if top_p else top_k, top_p, repetition_penalty)
    seed = secrets.randbits(32) if seed is None else seed
    length = _new_tokens(sess, prefix, length)
    stop = (truncate,) if truncate else ()
    first = Request(prefix or None, length, sampling, seed, 0, stop)
    requests = (dataclasses.replace(first, sample=number) for number in range(require_integer("nsamples", nsamples)))
    shown_prefix = prefix if prefix and include_prefix else ""
    texts = _finished_texts(sess, requests, batch_size or 1, shown_prefix, truncate)
    delimiter = "" if nsamples == 1 else sample_delim
    finished = []
    if destination_path:
        with atomic_write(Path(destination_path)) as file:
            for text in texts:
                file.write(f"{text}\n{delimiter}".encode())
                finished.append(text)
    else:
        for text in texts:
            if not return_as_list:
                print(f"{text}\n{delimiter}", end="", flush=True)
            finished.append(text)
    return finished if return_as_list else None


def _new_tokens(sess: Session, prefix: str | None, length: Any) -> int:
    """Return the number of tokens to generate for the parameter `length`."""
    if isinstance(length, (float, np.floating)) and length.is_integer():
        length = int(length)  # such as the result of numpy.floor
    if not prefix or length != DEFAULT_LENGTH:
        return length
    return max(1, length - len(sess.model.encoder.encode(prefix)))


def _finished_texts(
    sess: Session, requests: Iterable[Request], batch_size: int, shown_prefix: str, truncate: str | None
) -> Iterator[str]:
    """Yield the texts, each with `shown_prefix` before it and cut at `truncate`, which may start in the prefix."""
    for new_text in generate_texts(sess.model, requests, batch_size):
        text = shown_prefix + new_text
        yield (text.split(truncate, 1)[0] if truncate else text).lstrip("\n")


def generate_to_file(
    sess: Session,
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    truncate: str | None = None,
    destination_path: str = "gpt_2_gen_texts.txt",
    sample_delim: str = "=" * 20 + "\n",
    prefix: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int = 1,
    length: int = 1023,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 0.0,
    include_prefix: bool = True,
    **generate_options: Any,
) -> None:
    """Generate texts into a file, which appears when all texts are complete.

    The parameters, exceptions and further keyword arguments are the same as in `generate`.
    """
    generate(
        sess,
        run_name,
        checkpoint_dir,
        model_name,
        model_dir,
        truncate=truncate,
        destination_path=destination_path,
        sample_delim=sample_delim,
        prefix=prefix,
        seed=seed,
        nsamples=nsamples,
        batch_size=batch_size,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        include_prefix=include_prefix,
        **generate_options,
    )
