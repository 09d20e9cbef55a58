"""Conversion of corpora into SentencePiece vocabularies and files of ids, laid out as in transformer-lm.

A corpus is a folder with the subfolders train, valid and test. Each of them contains `*.txt` files in UTF-8, at any
depth.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpt2.data import documents, token_file
from gpt2.data.encode import encode_files
from gpt2.data.workers import EncodedBatch, pack_separator
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, atomic_write, atomic_write_many, creating_folder, no_callback
from gpt2.text.sentencepiece import END_OF_LINE, END_OF_TEXT, SP_MODEL_SUFFIX, UNKNOWN_TOKEN, import_sentencepiece
from gpt2.text.vocabulary import Vocabulary

TRAIN, VALID, TEST = SPLITS = ("train", "valid", "test")
IDS_FILE = "{}.npy"  # formatted with the name of a split
MAX_LINE_BYTES = 16384  # longer lines are not used to train vocabularies


def find_texts(corpora: Sequence[str], split: str) -> list[Path]:
    """Return the text files of a split of all corpora.

    Raises:
        GPT2Error: If a file holds something else than text.
        UsageError: If a corpus has no text files in the split.
    """
    paths: list[Path] = []
    for corpus in map(Path, corpora):
        files = sorted(path for path in (corpus / split).glob("**/*.txt") if path.is_file())
        if not files:
            raise UsageError(f"Corpus {split} split {printable_name(corpus / split)} looks empty, no text files found")
        paths += files
    documents.check_files(paths)
    return paths


def join_lines(paths: Sequence[Path], output: Path, report: ByteProgress = no_callback) -> None:
    """Write all lines of text files, except blank ones, into one file, which appears when it is complete.

    Args:
        paths: The text files.
        output: File to write.
        report: Progress callback, called with (done, total) bytes.
    """
    total = documents.total_size(paths)
    done = 0
    incomplete_line = ""
    report(done, total)
    with atomic_write(output) as file:
        for part in documents.read(paths, find_cut=_after_last_newline):
            lines = (incomplete_line + part.text + "\n" * part.last).split("\n")
            incomplete_line = "" if part.last else lines.pop()
            file.write("".join(f"{line}\n" for line in lines if line.strip()).encode("utf-8"))
            done += part.size
            report(done, total)


def _after_last_newline(text: str) -> int:
    return text.rfind("\n") + 1


def train_vocabulary(text: Path, prefix: str, vocab_size: int, character_coverage: float) -> Path:
    """Train a BPE vocabulary on the lines of a file, and write PREFIX.model and PREFIX.vocab.

    Args:
        text: The text file.
        prefix: Start of the paths of both files.
        vocab_size: Number of pieces.
        character_coverage: Share of the text's characters that get their own pieces.

    Returns:
        The path of PREFIX.model.

    Raises:
        GPT2Error: If the text yields fewer than `vocab_size` pieces, or if the files cannot be written.
        UsageError: If a value is out of range.
    """
    if vocab_size < 1 or not 0 < character_coverage <= 1:
        raise UsageError(
            f"vocab_size must be at least 1 and character_coverage above 0 and at most 1, not {vocab_size} and"
            f" {character_coverage}"
        )
    if not prefix or prefix.endswith(os.sep):
        raise UsageError(f"sp_model_prefix must be the start of a file name, not {prefix!r}")
    model = Path(f"{prefix}{SP_MODEL_SUFFIX}")
    try:
        with creating_folder(model.parent), atomic_write_many(model.parent, last=model.name) as folder:
            _run_trainer(text, folder / model.stem, vocab_size, character_coverage)
    except RuntimeError as error:
        raise GPT2Error(
            f"a vocabulary of {vocab_size} pieces could not be trained on {printable_name(text)}: {_reason(error)}"
        ) from error
    except OSError as error:
        raise GPT2Error(f"{model} cannot be written: {error.strerror or error}") from error
    return model


def _run_trainer(text: Path, prefix: Path, vocab_size: int, character_coverage: float) -> None:
    with _ctrl_c_ends_process():
        import_sentencepiece().SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(prefix),
            vocab_size=vocab_size,
            model_type="bpe",
            max_sentence_length=MAX_LINE_BYTES,
            bos_id=-1,
            eos_id=-1,
            unk_piece=UNKNOWN_TOKEN,
            control_symbols=[END_OF_LINE, END_OF_TEXT],
            character_coverage=character_coverage,
            minloglevel=2,  # errors only, which are also raised
        )


def _reason(error: RuntimeError) -> str:
    """Return SentencePiece's message without source locations and status codes."""
    message = re.sub(r"^.*?\(\d+\) *\[.*?\] *", "", str(error).strip().split("\n")[0])
    return re.sub(r"^(Internal|INTERNAL|Not found|NOT_FOUND): *", "", message) or type(error).__name__


@contextlib.contextmanager
def _ctrl_c_ends_process() -> Iterator[None]:
    """Let the system handle Ctrl-C: SentencePiece computes for minutes without returning to Python.

    Unfinished files are in a temporary folder that the next call removes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def encode_corpora(
    corpora: Sequence[str],
    vocabulary: Vocabulary,
    output: Path,
    show_split: Callable[[str, Path], contextlib.AbstractContextManager[ByteProgress]],
) -> None:
    """Encode the splits of corpora into OUTPUT/train.npy, valid.npy and test.npy.

    Each line is followed by an end-of-line token, each file by an end-of-text token.

    Args:
        corpora: The folders of the corpora.
        vocabulary: The vocabulary.
        output: Folder of the files, created if it does not exist.
        show_split: Called with the name and the output file of each split. Returns a context manager around the split's
            encoding, whose value is a progress callback for (done, total) bytes.

    Raises:
        GPT2Error: If a split holds no text, or if a file cannot be read or written.
        UsageError: If a split of a corpus has no files.
    """
    files = {split: find_texts(corpora, split) for split in SPLITS}
    with creating_folder(output):
        for split, paths in files.items():
            path = output / IDS_FILE.format(split)
            with show_split(split, path) as report, token_file.write(path, vocabulary) as writer:
                for batch in _encode_texts(paths, vocabulary, report):
                    writer.append(batch)
                if not writer.tokens:
                    raise GPT2Error(f"the {split} split holds no text")


def _encode_texts(paths: Sequence[Path], vocabulary: Vocabulary, report: ByteProgress) -> Iterator[EncodedBatch]:
    """Yield batches of ids like `encode_files`, without the end-of-text token that it puts before the first file."""
    leading = pack_separator(vocabulary)
    with contextlib.closing(encode_files(paths, vocabulary, "utf-8", documents.PLAIN_CSV, None, report)) as batches:
        for batch in batches:
            yield batch._replace(ids=batch.ids.removeprefix(leading))
            leading = b""
