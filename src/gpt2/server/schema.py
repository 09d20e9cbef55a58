"""What requests and answers hold, by OpenAI's names: https://platform.openai.com/docs/api-reference/completions.

`top_k`, `min_p`, `repetition_penalty` and `ignore_eos` are extensions, named as other servers name them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Ids = Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1)]
Text = Annotated[str, Field(strict=True)]
MOST_PROMPTS, MOST_CHOICES, MOST_STOPS, MOST_LOGPROBS = 128, 128, 16, 20


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """`POST /v1/completions`; null is as good as left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time", "max_tokens": 20}]})

    model: str | None = Field(None, description="one of `/v1/models`; the first of them if left out")
    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
        | None
    ) = Field(None, description="text, ids, or several; from nothing if left out")
    suffix: str | None = Field(None, description="refused: GPT-2 writes forwards only")
    max_tokens: int | None = Field(None, ge=0, description="16 if left out; 0 with `echo` scores the prompt alone")
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, description="0 is greedy; 1 if left out")
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES, description="so many are written, the likeliest `n` kept")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="one seed, one text, whatever else is written")
    user: str | None = None
    top_k: int | None = Field(None, ge=0, description="an extension; 0 is off")
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="an extension; 0 is off")
    repetition_penalty: float | None = Field(
        None, ge=0.001, le=1000, allow_inf_nan=False, description="an extension; 1 is off"
    )
    ignore_eos: bool | None = Field(None, description="an extension: to write on after the end of a text")


class Logprobs(BaseModel):
    """Of each token; null for the first of a text, and for what has a probability of 0."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int] = Field(description="where it begins in `text`, in characters")


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """An answer, or a part of one that is streamed."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "you"
    n_ctx: int
    n_vocab: int
    n_params: int
    precision: str


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenizeRequest(BaseModel):
    model: str | None = None
    prompt: Text


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    pieces: list[str]


class DetokenizeRequest(BaseModel):
    model: str | None = None
    tokens: list[Annotated[int, Field(strict=True, ge=0)]]


class Detokenized(BaseModel):
    prompt: str


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(BaseModel):
    """Every error has this shape, as in OpenAI's API."""

    error: ErrorBody
