"""Conversion of a completion request to the sequences that a scheduler generates."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2.engine.token_sequence import TokenSequence
from gpt2.hparams import HParams
from gpt2.request import Prompt, Request, Sampling
from gpt2.server.errors import ApiError
from gpt2.server.schema import MAX_CHOICES, CompletionRequest
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import Model, encode_prompt, prepare

DEFAULT_MAX_TOKENS = 16  # new tokens, as in OpenAI's API
MAX_QUOTED_CHARACTERS = 40  # of a field, in an error message
SAMPLING_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_p",
)


def prepare_sequences(model: Model, body: CompletionRequest, max_tokens: int) -> list[TokenSequence]:
    """Return the sequences that answer a request: for each prompt in turn, `best_of` of them, or `n` by default.

    Args:
        model: The model that generates.
        body: The request.
        max_tokens: Maximum number of new tokens of one text.

    Returns:
        The sequences, each with its `Request`.

    Raises:
        ApiError: The request is not allowed.
    """
    hparams = model.backend.hparams
    prompts = _split_prompts(body)
    samples_per_prompt = body.best_of or body.n or 1
    length = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    _check_limits(body, len(prompts) * samples_per_prompt)
    if length > max_tokens:
        raise ApiError(400, f"max_tokens must be at most {max_tokens}, not {length}", "max_tokens")
    template = _request_without_prompt(body, length, hparams.n_vocab)
    sequences: list[TokenSequence] = []
    for prompt in prompts:
        ids = _encode(model.encoder, prompt, hparams)
        for _ in range(samples_per_prompt):
            request = dataclasses.replace(template, prompt=prompt, sample=len(sequences))
            sequences.append(prepare(request, ids))
    return sequences


def _split_prompts(body: CompletionRequest) -> list[Prompt]:
    prompt = body.prompt
    if prompt is None or prompt == "":
        return [None]
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return [element or None for element in prompt]


def _check_limits(body: CompletionRequest, n_texts: int) -> None:
    """Check the rules that the schema cannot express.

    Raises:
        ApiError: A field is not supported, or the fields contradict each other.
    """
    n = body.n or 1
    best_of = body.best_of or n
    if body.suffix:
        raise ApiError(400, "suffix is not supported: GPT-2 generates text forward only; omit it", "suffix")
    if best_of < n:
        raise ApiError(400, f"best_of must be at least n, which is {n}, not {best_of}", "best_of")
    if best_of > n and body.stream:
        message = "best_of above n cannot be streamed, because the best texts are known only at the end"
        raise ApiError(400, message, "best_of")
    if n_texts > MAX_CHOICES:
        raise ApiError(400, f"a request may generate at most {MAX_CHOICES} texts, not {n_texts}", "n")


def _request_without_prompt(body: CompletionRequest, length: int, n_vocab: int) -> Request:
    sampling_fields: dict[str, Any] = {}
    for name in SAMPLING_FIELDS:
        if getattr(body, name) is not None:
            sampling_fields[name] = getattr(body, name)
    return Request(
        None,
        length,
        Sampling(**sampling_fields, logit_bias=dict(_parse_biases(body, n_vocab))),
        seed=secrets.randbits(63) if body.seed is None else body.seed % 2**64,
        stop=body.stop or (),
        end_of_text=not body.ignore_eos,
        logprobs=body.logprobs or 0,
        echo=bool(body.echo) and (body.logprobs is not None or not length),
    )


def _parse_biases(body: CompletionRequest, n_vocab: int) -> Iterator[tuple[int, float]]:
    for name, bias in (body.logit_bias or {}).items():
        if not name.isascii() or not name.isdecimal() or int(name[:12]) >= n_vocab:
            shown = name[:MAX_QUOTED_CHARACTERS]
            raise ApiError(400, f"logit_bias must have ids from 0 to {n_vocab - 1}, not {shown!r}", "logit_bias")
        yield int(name), bias


def _encode(encoder: Vocabulary, prompt: Prompt, hparams: HParams) -> Sequence[int]:
    """Return the ids of a prompt.

    Raises:
        ApiError: The prompt has no ids, more than the window holds, or ids that the model does not have.
    """
    ids = encode_prompt(encoder, prompt)
    if max(ids, default=0) >= hparams.n_vocab:
        message = f"the ids of a prompt must be from 0 to {hparams.n_vocab - 1}, not {max(ids)}"
        raise ApiError(400, message, "prompt")
    if not ids:
        raise ApiError(400, "the prompt has no tokens; give at least one", "prompt")
    if len(ids) > hparams.n_ctx:
        message = f"this model's context is {hparams.n_ctx} tokens and the prompt has {len(ids)}; shorten it"
        raise ApiError(400, message, "prompt", "context_length_exceeded")
    return ids
