"""A vocabulary of one's own: byte-level BPE (Sennrich et al. 2016, on bytes as Radford et al. 2019) trained on text.

The files are OpenAI's, `encoder.json` and `vocab.bpe`, so that every command reads them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

from gpt2.data import documents
from gpt2.data.token_file import is_sidecar
from gpt2.encoder import ENCODER_FILE, END_OF_TEXT, Encoder, byte_characters, without_surrogates
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, atomic_write_many, creating_folder, no_callback
from gpt2.formats.openai.checkpoint_files import STATE_FILE
from gpt2.hparams import HPARAMS_FILE

LEAST = 256 + 1  # the bytes and the end of text
MOST = 1 << 20  # more than any vocabulary has; the trainer takes memory for all of them before it reads
MIN_FREQUENCY = 2  # a merge that is seen once teaches nothing
BUFFERED = 1 << 16  # characters; the package reads 256 texts ahead

Merges = list[tuple[str, str]]


def train(
    path: str,
    out: Path,
    n_vocab: int,
    encoding: str = "utf-8",
    rows: documents.CsvFormat = documents.PLAIN_CSV,
    report: ByteProgress = no_callback,
) -> Encoder:
    """Trains a vocabulary of `n_vocab` ids on the text that `path` means (see `documents.find`) and writes it to `out`.

    Ids: the 256 bytes, what the merges make in their order, `<|endoftext|>`. A text with too few merges gives fewer,
    with a warning. report: told how many bytes of how many are read.

    Raises UsageError for an n_vocab that cannot be, GPT2Error if there is no text, if a file of it is damaged, if `out`
    holds a model, whose vocabulary it would replace, or if it cannot be written; `out` is then as it was.
    """
    if not LEAST <= n_vocab <= MOST:
        raise UsageError(f"n_vocab must be from {LEAST} (256 bytes and {END_OF_TEXT}) to {MOST}, not {n_vocab}")
    for name in (HPARAMS_FILE, STATE_FILE):
        if (out / name).exists():
            raise GPT2Error(f"{out} holds a model, which another vocabulary would spoil; choose another folder")
    paths = [file for file in documents.find_text_files(path) if not is_sidecar(file)]
    with contextlib.closing(_texts(paths, encoding, rows, report)) as texts:
        first = next(texts, None)
        if first is None:
            raise GPT2Error(f"{printable_name(path)} holds no text; give a file of text or a folder of such files")
        with creating_folder(out), _saved_in(out) as folder:
            merges = _merges(itertools.chain([first], texts), n_vocab - LEAST)
            encoder = _encoder(merges)
            for name, content in encoder.files().items():
                (folder / name).write_bytes(content)
    if encoder.n_vocab < n_vocab:
        warnings.warn(
            f"the text gives only {len(merges)} merges: n_vocab is {encoder.n_vocab}, not {n_vocab}", stacklevel=2
        )
    return encoder


def _encoder(merges: Merges) -> Encoder:
    pieces = [*byte_characters().values(), *dict.fromkeys(left + right for left, right in merges), END_OF_TEXT]
    return Encoder({piece: i for i, piece in enumerate(pieces)}, merges)


def _texts(
    paths: list[Path], encoding: str, rows: documents.CsvFormat, report: ByteProgress
) -> Generator[str, None, None]:
    size = documents.total_size(paths)
    done = 0
    for part in documents.read(paths, encoding, rows):
        for text, _ in documents.cut(documents.sliced(part.text, BUFFERED), BUFFERED):
            yield without_surrogates(text)
        done += part.size
        report(done, size)


def _merges(texts: Iterator[str], n: int) -> Merges:
    """The merges that make `n` new pieces, or as many as the texts give, by the package `tokenizers`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # only who trains a vocabulary needs it

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + n, min_frequency=MIN_FREQUENCY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]  # older versions: "a b"


@contextlib.contextmanager
def _saved_in(out: Path) -> Iterator[Path]:
    try:
        with atomic_write_many(out, last=ENCODER_FILE) as folder:
            yield folder
    except OSError as error:
        raise GPT2Error(
            f"the vocabulary in {printable_name(out)} cannot be written: {error.strerror or error}"
        ) from error
