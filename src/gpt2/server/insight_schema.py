"""What the page asks to look into a model, and what it is answered: its own, no other API has them.

Shapes: T tokens, L layers, H heads, V vocabulary.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from gpt2.server.schema import Ids, Text

MOST_LIKELIEST, MOST_BESIDE = 100, 20  # of a place alone, and of each place in a text


class NextRequest(BaseModel):
    """`POST /insight/next`: what may come after a text."""

    model: str | None = None
    prompt: Text | Ids = Field(description="text or ids; the last that the context holds are kept")
    top: int = Field(20, ge=1, le=MOST_LIKELIEST)


class ScoresRequest(BaseModel):
    """`POST /insight/scores`: how likely each token of a text was."""

    model: str | None = None
    prompt: Text = Field(description="the last tokens that the context holds are kept")
    top: int = Field(10, ge=1, le=MOST_BESIDE)


class LayersRequest(BaseModel):
    """`POST /insight/layers`: what happens inside."""

    model: str | None = None
    prompt: Text = Field(description="its last 256 tokens are kept")


class Token(BaseModel):
    """text: what it adds to those before it, empty if that is half a character."""

    id: int
    piece: str = Field(description="as people look at it: its text, or its name")
    text: str


class Likely(Token):
    """One that may come. text: empty, too, of what no text stands for."""

    logprob: float | None = Field(description="null for a probability of 0")


class Next(BaseModel):
    likeliest: list[Likely]


class Scored(Token):
    """One that is there; null for the first, which nothing stands before."""

    logprob: float | None
    rank: int | None = Field(description="1 is the likeliest")
    likeliest: list[Likely]


class Scores(BaseModel):
    skipped: int = Field(description="tokens before these, which the context does not hold")
    tokens: list[Scored]
    next: list[Likely]


class Guess(BaseModel):
    """The likeliest next tokens at a place, by what one layer has made of it; all by places, 0 to T - 1."""

    ids: list[list[int]]
    probabilities: list[list[float]]
    actual: list[float] = Field(description="of the token that does come, one fewer")


class Layers(BaseModel):
    """Numbers in Base64 are little-endian."""

    skipped: int
    tokens: list[Token]
    n_head: int
    attention: list[str] = Field(
        description="of each layer [H, T * (T + 1) / 2] uint16 in Base64: 65535 times how much each place takes from"
        " each up to itself"
    )
    guesses: list[Guess] = Field(description="before the first layer and after each, L + 1")
    logits: str = Field(description="of the next token [V] float32 in Base64, the largest first")
    likeliest: list[int] = Field(description="the ids of the first of them")
    pieces: dict[int, str] = Field(description="of all ids above")
