"""Requests and responses of /insight, the page's own API for token scores, attention and layer predictions.

Shapes: T tokens, L layers, H heads, V vocabulary.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from gpt2.server.fields import Integer, OnePrompt, Text

MAX_NEXT_TOKENS = 100  # that are listed for the end of a text
MAX_SCORE_TOKENS = 20  # that are listed for each position of a text


class NextRequest(BaseModel):
    """The body of `POST /insight/next`."""

    model: str | None = None
    prompt: OnePrompt = Field(description="text or token ids; if it is too long, its end is used")
    top: Integer = Field(20, ge=1, le=MAX_NEXT_TOKENS)


class ScoresRequest(BaseModel):
    """The body of `POST /insight/scores`."""

    model: str | None = None
    prompt: Text = Field(description="text; if it is too long for the model's context, its end is used")
    top: Integer = Field(10, ge=1, le=MAX_SCORE_TOKENS)


class LayersRequest(BaseModel):
    """The body of `POST /insight/layers`."""

    model: str | None = None
    prompt: Text = Field(description="text, of which the last 256 tokens are used")


class TextToken(BaseModel):
    """A token of a text."""

    id: int
    piece: str = Field(description="the token for display: its text, or its name")
    text: str = Field(description="the text that it adds; empty if it ends within a character")


class LikelyToken(TextToken):
    """A token that may come next. Its `text` is also empty if the token stands for no text."""

    logprob: float | None = Field(description="null for a probability of 0")


class NextResponse(BaseModel):
    """The most likely next tokens."""

    likeliest: list[LikelyToken]


class RankedToken(TextToken):
    """A token of a text with its log-probability and rank, which are null for the first token."""

    logprob: float | None
    rank: int | None = Field(description="1 is the most likely token")
    likeliest: list[LikelyToken]


class ScoresResponse(BaseModel):
    """The scores of each token of a text."""

    skipped: int = Field(description="number of tokens left out at the start, because the context is full")
    tokens: list[RankedToken]
    next: list[LikelyToken]


class LayerGuess(BaseModel):
    """The most likely next tokens at each position, 0 to T - 1, as one layer predicts them."""

    ids: list[list[int]]
    probabilities: list[list[float]]
    actual: list[float] = Field(description="the T - 1 probabilities of the tokens that follow")


class LayersResponse(BaseModel):
    """The values that each layer computes. Numbers in Base64 are little-endian."""

    skipped: int
    tokens: list[TextToken]
    n_head: int
    attention: list[str] = Field(
        description="for each layer [H, T * (T + 1) / 2] uint16 in Base64: 65535 times the attention of each position"
        " to each position up to itself"
    )
    guesses: list[LayerGuess] = Field(description="before the first layer and after each layer, L + 1")
    logits: str = Field(description="logits of the next token [V] float32 in Base64, in descending order")
    likeliest: list[int] = Field(description="the ids of the first of these logits")
    pieces: dict[int, str] = Field(description="the token for display, for each id in guesses and `likeliest`")
