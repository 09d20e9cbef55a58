"""The declaration of a command's flags, and the flags that several commands share.

A flag is an annotated field of a dataclass or an annotated parameter of a function:

    length: Annotated[int | None, Flag(help="number of new tokens", minimum=0)] = None

The flag has the field's name, type and default. `Flag` adds facts that Python's types cannot express. `gpt2.cli` parses
the flags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from gpt2.request import PRECISIONS

TEXT_FILES = "a file (.txt, .csv or .tsv, also with .gz), a folder, or a quoted pattern such as 'data/**/*.txt'"


class Flag(NamedTuple):
    """The annotation that makes a field a flag.

    Attributes:
        help: The flag's description in `--help`.
        expects: The kind of value in words, such as "a path"; empty derives it from the field's type.
        minimum: The smallest number that the command line accepts; None leaves the check to the library.
        parse: Function that converts the typed string, or raises ValueError; None derives it from the field's type.
        repeatable: Whether the flag may be given more than once; its values are then collected in a tuple.
    """

    help: str
    expects: str = ""
    minimum: int | None = None
    parse: Callable[[str], Any] | None = None
    repeatable: bool = False


# The model and its computation.
ModelName = Annotated[
    str, Flag(expects="a name", help="the model: a name under models_dir, or the path of a model directory")
]
ModelsDir = Annotated[
    str, Flag(expects="a folder", help="folder that contains the model folders; ~ and $VARIABLES are expanded")
]
Precision = Annotated[
    str,
    Flag(expects="a name", help=f"precision of the weights in memory: {', '.join(PRECISIONS)}; narrower is faster"),
]
Threads = Annotated[int | None, Flag(help="number of threads that compute; all cores if not given")]
NoCache = Annotated[
    bool, Flag(help="neither use packed weights in ~/.cache/gpt-2-tensorflow nor store them there for the next start")
]

# Sampling.
Seed = Annotated[
    int | None,
    Flag(help="seed of the random numbers: the same seed gives the same text; drawn and shown if not given", minimum=0),
]
SampleCount = Annotated[int, Flag(help="number of samples to generate", minimum=0)]
BatchSize = Annotated[int, Flag(help="samples computed together; affects speed and memory only", minimum=1)]
Length = Annotated[int | None, Flag(help="number of new tokens")]
Temperature = Annotated[
    float, Flag(help="randomness: 0 always takes the most likely token, 1 samples as the model was trained")
]
TopK = Annotated[
    int, Flag(help="sample from the k most likely tokens; 1 is deterministic, 40 is a good value, 0 turns it off")
]
TopP = Annotated[
    float, Flag(help="sample from the most likely tokens whose probabilities add up to p; 0.9 is a good value")
]
MinP = Annotated[
    float,
    Flag(help="sample from tokens with at least this share of the most likely token's probability; 0 turns it off"),
]
RepetitionPenalty = Annotated[float, Flag(help="penalty for tokens already in the text; 1 turns it off, 1.2 is strong")]
FrequencyPenalty = Annotated[
    float, Flag(help="penalty for each time a token was generated, from -2 to 2; 0 turns it off")
]
PresencePenalty = Annotated[
    float, Flag(help="penalty for tokens that were generated at least once, from -2 to 2; 0 turns it off")
]
Stop = Annotated[tuple[str, ...], Flag(help="end a sample before this text; for several texts: \"['one', '\\n\\n']\"")]

# Input text.
InText = Annotated[str, Flag(expects="a path", help=f"text to read: {TEXT_FILES}")]
OptionalInText = Annotated[str | None, Flag(expects="a path", help=f"text to read: {TEXT_FILES}")]
Text = Annotated[str | None, Flag(help="the text itself, instead of a file")]
Encoding = Annotated[str, Flag(expects="a name", help="encoding of the text that is read from files or stdin")]
Column = Annotated[
    str | None,
    Flag(expects="a name", help="the column of a .csv or .tsv to read; `text`, or the only column, if not given"),
]
NoHeader = Annotated[bool, Flag(help="read the first row of a .csv or .tsv as data, not as names of columns")]
CsvHeader = Annotated[bool, Flag(help="the default, for old command lines: the first row of each .csv is not text")]

# Context for scoring a text.
Window = Annotated[int | None, Flag(help="tokens that the model sees at once; its n_ctx if not given", minimum=1)]
Stride = Annotated[
    int | None, Flag(help="tokens by which the window moves; small values give more context and take longer", minimum=1)
]
