"""Training of a byte-level BPE vocabulary on text (Sennrich et al. 2016, on bytes as in Radford et al. 2019).

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
from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, atomic_write_many, creating_folder, no_callback
from gpt2.formats.openai.checkpoint_files import STATE_FILE
from gpt2.hparams import HPARAMS_FILE
from gpt2.text.bpe_files import ENCODER_FILE
from gpt2.text.byte_level import byte_characters
from gpt2.text.undecodable import without_surrogates

MIN_VOCAB_SIZE = 256 + 1  # the bytes and the end of text
MAX_VOCAB_SIZE = 1 << 20  # larger than any vocabulary; the trainer allocates memory for all ids before it reads text
MIN_FREQUENCY = 2  # a pair that occurs once is not worth a merge
BUFFER_CHARACTERS = 1 << 16  # length of one text; the package tokenizers reads 256 texts ahead

Merges = list[tuple[str, str]]


def train(
    path: str,
    out: Path,
    n_vocab: int,
    encoding: str = "utf-8",
    csv_format: documents.CsvFormat = documents.PLAIN_CSV,
    report: ByteProgress = no_callback,
) -> Encoder:
    """Train a vocabulary and write its files.

    The ids are the 256 bytes, the results of the merges in their order, and `<|endoftext|>`. If the text has too few
    merges, the vocabulary is smaller, with a warning. After an error, `out` is unchanged.

    Args:
        path: A file, folder or pattern of text, as `documents.find_text_files` takes it.
        out: Folder for the files.
        n_vocab: Size of the vocabulary.
        encoding: The encoding of the text files.
        csv_format: The layout of `.csv` and `.tsv` files.
        report: Called with (done, total) bytes.

    Returns:
        The trained vocabulary.

    Raises:
        UsageError: n_vocab is out of range.
        GPT2Error: There is no text, a file is damaged, `out` contains a model (its vocabulary would be replaced), or
            `out` cannot be written.
    """
    if not MIN_VOCAB_SIZE <= n_vocab <= MAX_VOCAB_SIZE:
        allowed = f"from {MIN_VOCAB_SIZE} (256 bytes and {END_OF_TEXT}) to {MAX_VOCAB_SIZE}"
        raise UsageError(f"n_vocab must be {allowed}, not {n_vocab}")
    for name in (HPARAMS_FILE, STATE_FILE):
        if (out / name).exists():
            raise GPT2Error(f"{out} holds a model, which does not work with another vocabulary; choose another folder")
    paths = [file for file in documents.find_text_files(path) if not is_sidecar(file)]
    documents.check_files(paths, encoding, csv_format)
    with contextlib.closing(_read_texts(paths, encoding, csv_format, report)) as texts:
        first = next(texts, None)
        if first is None:
            raise GPT2Error(f"{printable_name(path)} holds no text; give a file of text or a folder of such files")
        with creating_folder(out), _writing_into(out) as folder:
            merges = _train_merges(itertools.chain([first], texts), n_vocab - MIN_VOCAB_SIZE)
            encoder = _build_encoder(merges)
            for name, content in encoder.files().items():
                (folder / name).write_bytes(content)
    if encoder.n_vocab < n_vocab:
        warnings.warn(
            f"the text gives only {len(merges)} merges: n_vocab is {encoder.n_vocab}, not {n_vocab}", stacklevel=2
        )
    return encoder


def _build_encoder(merges: Merges) -> Encoder:
    pieces = [*byte_characters().values(), *dict.fromkeys(left + right for left, right in merges), END_OF_TEXT]
    return Encoder({piece: i for i, piece in enumerate(pieces)}, merges)


def _read_texts(
    paths: list[Path], encoding: str, csv_format: documents.CsvFormat, report: ByteProgress
) -> Generator[str, None, None]:
    """Yield the text of the files in strings of about BUFFER_CHARACTERS."""
    size = documents.total_size(paths)
    done = 0
    for part in documents.read(paths, encoding, csv_format):
        blocks = documents.slice_text(part.text, BUFFER_CHARACTERS)
        for text, _ in documents.split_document(blocks, BUFFER_CHARACTERS):
            yield without_surrogates(text)
        done += part.size
        report(done, size)


def _train_merges(texts: Iterator[str], n_merges: int) -> Merges:
    """Return `n_merges` merges, or as many as the texts give, from the package tokenizers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # only needed for training a vocabulary

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + n_merges,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [
        tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges
    ]  # a string in older versions


@contextlib.contextmanager
def _writing_into(out: Path) -> Iterator[Path]:
    try:
        with atomic_write_many(out, last=ENCODER_FILE) as folder:
            yield folder
    except OSError as error:
        raise GPT2Error(
            f"the vocabulary in {printable_name(out)} cannot be written: {error.strerror or error}"
        ) from error
