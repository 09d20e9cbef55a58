"""Generating: the old parameters as `gpt2.request.Request`s; texts are printed, written and returned as they were."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.files import atomic_write
from gpt2.generate import generate as write
from gpt2.request import Request, Sampling, require_integer
from gpt2.training.settings.settings import LATEST
from gpt_2_simple.session import Session, checked, eagerly, find

WHOLE_WINDOW = 1023  # the default of length and sample_length: as much as GPT-2's window holds after one token


@eagerly
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
    """Writes texts with the session's model; one that has none loads what run_name or model_name say.

    The texts are printed, or written to `destination_path`, each followed by `sample_delim` if there are several, and
    returned if `return_as_list` is true. sample_dir: of no effect.

    length: so many new tokens, the window sliding if they are many; 1023, the default, counts the prefix too.
    truncate: a text ends before it, and is not written further. include_prefix: whether the texts begin with the
    prefix. top_p, if above 0, replaces top_k. batch_size: how many are written at once; need not divide nsamples.
    """
    if checked(sess).directory is None:
        sess.use(find(LATEST, run_name, checkpoint_dir, model_name, model_dir))
    sampling = Sampling(temperature, 0 if top_p else top_k, top_p, repetition_penalty)
    seed = secrets.randbits(32) if seed is None else seed
    length = _new_tokens(sess, prefix, length)
    stop = (truncate,) if truncate else ()
    first = Request(prefix or None, length, sampling, seed, 0, stop)
    requests = (dataclasses.replace(first, sample=number) for number in range(require_integer("nsamples", nsamples)))
    texts = _texts(sess, requests, batch_size or 1, prefix if prefix and include_prefix else "", truncate)
    delimiter = "" if nsamples == 1 else sample_delim
    written = []
    if destination_path:
        with atomic_write(Path(destination_path)) as file:
            for text in texts:
                file.write(f"{text}\n{delimiter}".encode())
                written.append(text)
    else:
        for text in texts:
            if not return_as_list:
                print(f"{text}\n{delimiter}", end="", flush=True)
            written.append(text)
    return written if return_as_list else None


def _new_tokens(sess: Session, prefix: str | None, length: Any) -> int:
    if isinstance(length, (float, np.floating)) and length.is_integer():
        length = int(length)  # as NumPy's floor gives it
    if not prefix or length != WHOLE_WINDOW:
        return length
    return max(1, length - len(sess.model.encoder.encode(prefix)))


def _texts(
    sess: Session, requests: Iterable[Request], batch_size: int, before: str, truncate: str | None
) -> Iterator[str]:
    """The texts with what stands before them, up to `truncate`, which may begin in there."""
    for new in write(sess.model, requests, batch_size):
        text = before + new
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
    **more: Any,
) -> None:
    """`generate` into a file, which appears when all texts are written. more: what `generate` takes by keyword only."""
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
        **more,
    )
