"""From a completion that is asked for to texts that a desk writes, and back to OpenAI's choices. No HTTP here."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from gpt2.engine.token_sequence import TokenChoice, TokenSequence, finite_or_none
from gpt2.generate import FINISH_LENGTH, FINISH_STOP, Model, TextChunk, encode_prompt, prepare
from gpt2.request import Request, Sampling
from gpt2.server.errors import ApiError
from gpt2.server.schema import MOST_CHOICES, CompletionChoice, CompletionRequest, Logprobs, Usage
from gpt2.text.vocabulary import Vocabulary

T = TypeVar("T")
MAX_TOKENS = 16  # new tokens, where a request does not say how many: OpenAI's default
FINISHED: dict[str, Literal["stop", "length"] | None] = {FINISH_STOP: "stop", FINISH_LENGTH: "length", "": None}
GREEDY_TOO = 1  # likeliest tokens that come at least where there are log-probabilities


@dataclasses.dataclass(frozen=True)
class Plan:
    """What comes of a request: texts in the order of their prompts, `best_of` for each, of which `n` are kept."""

    texts: list[TokenSequence]
    prompts: list[str]  # as they are echoed, one for each text
    n: int
    best_of: int
    logprobs: int | None
    echo: bool
    prompt_tokens: int


def size(body: CompletionRequest) -> int:
    """Characters and ids that its plan has to read."""
    prompt = body.prompt or ""
    of_one = len(prompt) if isinstance(prompt, str) else sum(1 if isinstance(one, int) else len(one) for one in prompt)
    return of_one * (body.best_of or body.n or 1)


def plan(model: Model, body: CompletionRequest, most_tokens: int) -> Plan:
    """Raises ApiError for what cannot be."""
    if body.suffix:
        raise ApiError(400, "suffix cannot be honoured: GPT-2 writes forwards only", "suffix")
    prompts = _prompts(body)
    n = body.n or 1
    best_of = n if body.best_of is None else body.best_of
    length = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if best_of < n:
        raise ApiError(400, f"best_of must be at least n, which is {n}, not {best_of}", "best_of")
    if best_of > n and body.stream:
        raise ApiError(400, "best_of above n cannot be streamed: the best is known at the end", "best_of")
    if len(prompts) * best_of > MOST_CHOICES:
        raise ApiError(400, f"at most {MOST_CHOICES} texts at a time, not {len(prompts) * best_of}", "n")
    if length > most_tokens:
        raise ApiError(400, f"max_tokens is at most {most_tokens} here, not {length}", "max_tokens")
    request = _request(model, body, length, best_of > n)
    texts, ids_in_all = [], 0
    for number, prompt in enumerate(prompts):
        ids = _ids(model, prompt)
        ids_in_all += len(ids) if prompt is not None else 0
        for sample in range(best_of):
            one = dataclasses.replace(request, prompt=prompt, sample=number * best_of + sample)
            texts.append(prepare(one, ids))
    echoed = [_as_text(model.encoder, text.request.prompt if text.request else None) for text in texts]
    return Plan(texts, echoed, n, best_of, body.logprobs, bool(body.echo), ids_in_all)


def _prompts(body: CompletionRequest) -> list[str | Sequence[int] | None]:
    prompt = body.prompt
    if prompt is None or prompt == "":
        return [None]
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return [one or None for one in prompt]


def _request(model: Model, body: CompletionRequest, length: int, is_ranked: bool) -> Request:
    """All but its prompt."""
    sampling = Sampling(
        temperature=_default(body.temperature, 1.0),
        top_k=_default(body.top_k, 0),
        top_p=_default(body.top_p, 1.0),
        repetition_penalty=_default(body.repetition_penalty, 1.0),
        frequency_penalty=_default(body.frequency_penalty, 0.0),
        presence_penalty=_default(body.presence_penalty, 0.0),
        min_p=_default(body.min_p, 0.0),
        logit_bias=dict(_biases(body, model.hparams.n_vocab)),
    )
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**64
    likeliest = max(body.logprobs, GREEDY_TOO) if body.logprobs is not None else 0
    return Request(
        None,
        length,
        sampling,
        seed,
        stop=body.stop or (),
        end_of_text=not body.ignore_eos,
        logprobs=likeliest,
        echo=bool(body.echo) and (body.logprobs is not None or not length),
    )


def _default(value: T | None, default: T) -> T:
    return default if value is None else value


def _biases(body: CompletionRequest, n_vocab: int) -> Iterator[tuple[int, float]]:
    for name, bias in (body.logit_bias or {}).items():
        if not name.isascii() or not name.isdecimal() or int(name[:12]) >= n_vocab:
            raise ApiError(400, f"logit_bias has ids from 0 to {n_vocab - 1}, not {name[:40]!r}", "logit_bias")
        yield int(name), bias


def _ids(model: Model, prompt: str | Sequence[int] | None) -> Sequence[int]:
    ids, n_vocab, n_ctx = encode_prompt(model.encoder, prompt), model.hparams.n_vocab, model.hparams.n_ctx
    if max(ids, default=0) >= n_vocab:
        raise ApiError(400, f"the ids of a prompt are from 0 to {n_vocab - 1}, not {max(ids)}", "prompt")
    if not ids:
        raise ApiError(400, "a prompt has no tokens", "prompt")
    if len(ids) > n_ctx:
        said = f"this model's context is {n_ctx} tokens and the prompt has {len(ids)}; shorten it"
        raise ApiError(400, said, "prompt", "context_length_exceeded")
    return ids


def _as_text(encoder: Vocabulary, prompt: str | Sequence[int] | None) -> str:
    if prompt is None:
        return ""
    return prompt if isinstance(prompt, str) else encoder.decode(prompt)


class Writing:
    """One text on its way to a choice, whole or in parts."""

    def __init__(self, plan: Plan, place: int, encoder: Vocabulary) -> None:
        self.plan, self.place, self.encoder = plan, place, encoder
        self.prompt = plan.prompts[place] if plan.echo else ""
        self.offset = 0  # characters that there are
        self.begun = False
        self.scored: list[TokenChoice] = []
        self.ended = ""

    def part(self, piece: TextChunk) -> CompletionChoice:
        """What a piece adds."""
        prompt_said = self.prompt if not self.begun else ""
        logprobs = self._logprobs(piece) if self.plan.logprobs is not None else None
        self.begun, self.ended = True, piece.finish_reason
        self.offset += len(piece.text)
        if piece.token is not None:
            self.scored.append(piece.token)
        return CompletionChoice(
            index=0, text=prompt_said + piece.text, logprobs=logprobs, finish_reason=FINISHED[piece.finish_reason]
        )

    @property
    def mean_logprob(self) -> float:
        """By which the best of several are known."""
        return sum(choice.logprob for choice in self.scored) / max(1, len(self.scored))

    def _logprobs(self, piece: TextChunk) -> Logprobs:
        found = Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        if not self.begun and self.plan.echo:
            self._prompt_logprobs(piece.prompt, found)
            self.offset = len(self.prompt)
        if piece.token is not None:
            self._add(found, piece.token.id, piece.token, self.offset)
        return found

    def _prompt_logprobs(self, echoed: Sequence[TokenChoice | None], found: Logprobs) -> None:
        ids = self.plan.texts[self.place].prompt
        if not self.prompt:
            return  # nothing was there to be echoed
        stream, at = self.encoder.stream(), 0
        for token, choice in zip(ids, echoed):
            self._add(found, token, choice, at)
            at += len(stream.feed([token]))

    def _add(self, found: Logprobs, token: int, choice: TokenChoice | None, offset: int) -> None:
        wanted = self.plan.logprobs or 0
        found.tokens.append(self.encoder.token_text(token))
        found.text_offset.append(offset)
        found.token_logprobs.append(finite_or_none(choice.logprob) if choice else None)
        top = {} if choice is None else dict([*choice.top_logprobs[:wanted], (choice.id, choice.logprob)])
        found.top_logprobs.append(
            {self.encoder.token_text(i): finite_or_none(x) for i, x in top.items()} if top else None
        )


def joined(parts: Sequence[CompletionChoice], index: int) -> CompletionChoice:
    """Parts of a choice that follow each other, as one."""
    said = [part.logprobs for part in parts if part.logprobs is not None]
    columns = {name: [x for one in said for x in getattr(one, name)] for name in Logprobs.model_fields}
    logprobs, text = Logprobs(**columns) if said else None, "".join(part.text for part in parts)
    return CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=parts[-1].finish_reason)


def whole(parts: Sequence[CompletionChoice], index: int) -> CompletionChoice:
    """The whole choice; of its tokens those that its text has something of: not a stop string's."""
    choice = joined(parts, index)
    if choice.logprobs is not None and choice.finish_reason != "length":
        inside = [offset < len(choice.text) for offset in choice.logprobs.text_offset]
        columns = {name: getattr(choice.logprobs, name) for name in Logprobs.model_fields}
        choice.logprobs = Logprobs(
            **{name: [x for x, is_in in zip(xs, inside) if is_in] for name, xs in columns.items()}
        )
    return choice


def best(
    plan: Plan, writings: Sequence[Writing], parts: Sequence[Sequence[CompletionChoice]]
) -> list[CompletionChoice]:
    """The choices of all prompts, of each the `n` likeliest of its `best_of`, in the order in which they were begun
    unless they were ranked."""
    chosen = []
    for first in range(0, len(writings), plan.best_of):
        places = list(range(first, first + plan.best_of))
        if plan.best_of > plan.n:
            places.sort(key=lambda place: -writings[place].mean_logprob)
        chosen += places[: plan.n]
    return [whole(parts[place], index) for index, place in enumerate(chosen)]


def usage(plan: Plan, writings: Iterable[Writing]) -> Usage:
    """Tokens of the prompts, each counted once, and all that were written."""
    written = sum(len(writing.scored) for writing in writings)
    total = plan.prompt_tokens + written
    return Usage(prompt_tokens=plan.prompt_tokens, completion_tokens=written, total_tokens=total)
