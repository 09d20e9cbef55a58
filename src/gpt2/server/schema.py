"""Requests and responses, with the names of OpenAI's API: https://platform.openai.com/docs/api-reference/completions.

`top_k`, `min_p`, `repetition_penalty` and `ignore_eos` are extensions, with the names that other servers use.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gpt2.server.fields import Biases, IdsToDecode, Integer, Number, Prompts, Seed, StopField, Text

MAX_CHOICES = 128  # texts that are generated for one request
MAX_LOGPROBS = 20  # most likely tokens that are listed for each token
MAX_LISTED_LOGPROBS = 1 << 20  # in one response


class StreamOptions(BaseModel):
    """Options of a streamed response."""

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`. A null is the same as an omitted field."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time", "max_tokens": 20}]})

    model: str | None = Field(None, description="a name from `/v1/models`; by default the first one")
    prompt: Prompts = Field(
        None, description="text, token ids, or a list of either; by default the model starts a new text"
    )
    suffix: str | None = Field(None, description="not supported: GPT-2 generates text forward only")
    max_tokens: Integer | None = Field(
        None, ge=-1, description="16 by default; -1 is the server's limit; 0 with `echo` only scores the prompt"
    )
    temperature: Number | None = Field(None, ge=0, le=100, description="0 is greedy; 1 by default")
    top_p: Number | None = Field(None, ge=0, le=1)
    n: Integer | None = Field(None, ge=1, le=MAX_CHOICES)
    best_of: Integer | None = Field(
        None,
        ge=1,
        le=MAX_CHOICES,
        description="number of generated texts; the `n` most likely are returned",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Integer | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="number of likely tokens to list for each token; null or false is off"
    )
    echo: bool | None = None
    stop: StopField | None = Field(None, description="a string or several, each of which ends the text; empty is off")
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    logit_bias: Biases | None = None
    seed: Seed | None = Field(None, description="the same seed gives the same text, regardless of other requests")
    user: str | None = None
    top_k: Integer | None = Field(None, ge=-1, description="an extension; 0 and -1 are off")
    min_p: Number | None = Field(None, ge=0, le=1, description="an extension; 0 is off")
    repetition_penalty: Number | None = Field(None, ge=0.001, le=1000, description="an extension; 1 is off")
    ignore_eos: bool | None = Field(
        None, description="an extension: whether generation continues after a token that ends a text"
    )

    @field_validator("logprobs", mode="before")
    @classmethod
    def _convert_switch(cls, value: Any) -> Any:
        """Return None for false, and 1 for true, which chat APIs send."""
        return (1 if value else None) if isinstance(value, bool) else value


class Logprobs(BaseModel):
    """Log-probabilities, a column each; null for the first token of a text and for a probability of 0."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int] = Field(description="position of the token in `text`, in characters")


class CompletionChoice(BaseModel):
    """One text of a completion."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionResponse(BaseModel):
    """A completion, or a part of a streamed completion."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    """The description of a model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "you"
    n_ctx: int
    n_vocab: int
    n_params: int
    precision: str


class ModelList(BaseModel):
    """All models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenizeRequest(BaseModel):
    """The body of `POST /tokenize`."""

    model: str | None = None
    prompt: Text


class TokenizeResponse(BaseModel):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    pieces: list[str]


class DetokenizeRequest(BaseModel):
    """The body of `POST /detokenize`."""

    model: str | None = None
    tokens: IdsToDecode


class DetokenizeResponse(BaseModel):
    """The text of tokens."""

    prompt: str


class ErrorDetail(BaseModel):
    """The error of a rejected request."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """An error. All errors have this form, as in OpenAI's API."""

    error: ErrorDetail
