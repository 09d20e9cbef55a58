"""Conversion of a completion request to the sequences that a scheduler generates."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.request import Prompt, Request, Sampling
from gpt2.server.errors import ApiError, describe, quote
from gpt2.server.schema import MAX_CHOICES, MAX_LISTED_LOGPROBS, CompletionRequest
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import Model, encode_prompt, prepare

DEFAULT_MAX_TOKENS = 16  # new tokens, as in OpenAI's API
TOP_K_OFF = -1  # in other servers; 0 is off as well
TOKEN_ID = re.compile("0|[1-9][0-9]{0,18}")
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
    length = _length(body, max_tokens)
    _check_limits(body, len(prompts) * samples_per_prompt)
    template = _request_without_prompt(body, length, hparams.n_vocab)
    sequences: list[TokenSequence] = []
    for prompt in prompts:
        ids = _encode_within_context(model.encoder, prompt, hparams)
        for _ in range(samples_per_prompt):
            request = dataclasses.replace(template, prompt=prompt, sample=len(sequences))
            sequences.append(prepare(request, ids))
    _check_listed_logprobs(body, sequences)
    return sequences


def _length(body: CompletionRequest, max_tokens: int) -> int:
    """Return the number of new tokens of a text; -1 requests the maximum.

    Raises:
        ApiError: The number is above the maximum.
    """
    if body.max_tokens is None:
        return min(DEFAULT_MAX_TOKENS, max_tokens)
    if body.max_tokens > max_tokens:
        message = f"max_tokens must be at most {max_tokens}, not {describe(body.max_tokens)}"
        raise ApiError(400, message, "max_tokens")
    return max_tokens if body.max_tokens < 0 else body.max_tokens


def count_characters(body: CompletionRequest) -> int:
    """Return the number of characters or ids in the prompts of a request."""
    prompt = body.prompt or ""
    return len(prompt) if isinstance(prompt, str) or isinstance(prompt[0], int) else sum(map(len, prompt))


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


def _check_listed_logprobs(body: CompletionRequest, sequences: Sequence[TokenSequence]) -> None:
    """Check how many log-probabilities the response would list.

    Raises:
        ApiError: They are too many.
    """
    if body.logprobs is None:
        return
    n_tokens = sum((len(sequence.prompt) if sequence.echo else 0) + (sequence.length or 0) for sequence in sequences)
    n_listed = n_tokens * (1 + body.logprobs)
    if n_listed > MAX_LISTED_LOGPROBS:
        message = (
            f"the response would list up to {n_listed} log-probabilities, and {MAX_LISTED_LOGPROBS} are allowed;"
            " request fewer texts, tokens or logprobs"
        )
        raise ApiError(400, message, "logprobs")


def _request_without_prompt(body: CompletionRequest, length: int, n_vocab: int) -> Request:
    sampling_fields: dict[str, Any] = {}
    for name in SAMPLING_FIELDS:
        if getattr(body, name) is not None:
            sampling_fields[name] = getattr(body, name)
    if body.top_k == TOP_K_OFF:
        del sampling_fields["top_k"]
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
    """Yield the ids and values of `logit_bias`.

    Raises:
        ApiError: A key is not an id in its usual form: digits without sign, spaces or leading zeros.
    """
    for name, bias in (body.logit_bias or {}).items():
        if not TOKEN_ID.fullmatch(name) or int(name) >= n_vocab:
            message = f"the keys of logit_bias must be token ids from 0 to {n_vocab - 1}, not {quote(name)}"
            raise ApiError(400, message, "logit_bias")
        yield int(name), bias


def encode(encoder: Vocabulary, prompt: Prompt, n_vocab: int) -> Sequence[int]:
    """Return the ids of a prompt; None becomes the end-of-text id.

    Raises:
        ApiError: The prompt cannot be encoded, it has no ids, or the model does not have all of its ids.
    """
    try:
        ids = encode_prompt(encoder, prompt)
    except GPT2Error as error:
        raise ApiError(400, str(error), "prompt") from error
    if not ids:
        raise ApiError(400, "the prompt has no tokens; give at least one", "prompt")
    check_ids(ids, n_vocab, "prompt")
    return ids


def check_ids(ids: Sequence[int], n_vocab: int, field: str) -> None:
    """Check that the model has all ids of a field; none is negative.

    Raises:
        ApiError: An id is too large.
    """
    largest = max(ids, default=0)
    if largest >= n_vocab:
        raise ApiError(400, f"the ids of {field} must be from 0 to {n_vocab - 1}, not {describe(largest)}", field)


def _encode_within_context(encoder: Vocabulary, prompt: Prompt, hparams: HParams) -> Sequence[int]:
    """Return the ids of a prompt.

    Raises:
        ApiError: The prompt cannot be encoded, or has more ids than the window holds.
    """
    ids = encode(encoder, prompt, hparams.n_vocab)
    if len(ids) > hparams.n_ctx:
        message = f"this model's context is {hparams.n_ctx} tokens and the prompt has {len(ids)}; shorten it"
        raise ApiError(400, message, "prompt", "context_length_exceeded")
    return ids
