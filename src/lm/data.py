"""Corpora -> a SentencePiece vocabulary, and files of its ids, as transformer-lm lays them out.

A corpus is a folder with the folders train, valid and test, each with files `*.txt` in UTF-8 in it or below.
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
from gpt2.data.workers import Encoded, pack_separator
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import ByteProgress, atomic_write, atomic_write_many, creating_folder, no_callback
from gpt2.text.sentencepiece import END_OF_LINE, END_OF_TEXT, SP_MODEL_SUFFIX, UNKNOWN_TOKEN, import_sentencepiece
from gpt2.text.vocabulary import Vocabulary

TRAIN, VALID, TEST = SPLITS = ("train", "valid", "test")
IDS = "{}.npy"  # of a split
LONGEST_LINE = 16384  # bytes; longer ones do not count


def texts(corpora: Sequence[str], split: str) -> list[Path]:
    """The files of a split of all corpora. Raises UsageError for a corpus that has none."""
    found: list[Path] = []
    for corpus in map(Path, corpora):
        files = sorted(path for path in (corpus / split).glob("**/*.txt") if path.is_file())
        if not files:
            raise UsageError(f"Corpus {split} split {printable_name(corpus / split)} looks empty, no text files found")
        found += files
    return found


def gather(paths: Sequence[Path], path: Path, report: ByteProgress = no_callback) -> None:
    """Writes the lines of the files that are not blank into one, which appears when it is whole."""
    size, done, held = documents.total_size(paths), 0, ""
    report(done, size)
    with atomic_write(path) as file:
        for part in documents.read(paths, where=_after_line):
            lines = (held + part.text + "\n" * part.last).split("\n")
            held = "" if part.last else lines.pop()
            file.write("".join(f"{line}\n" for line in lines if line.strip()).encode("utf-8"))
            done += part.size
            report(done, size)


def _after_line(text: str) -> int:
    return text.rfind("\n") + 1


def train(text: Path, prefix: str, vocab_size: int, character_coverage: float) -> Path:
    """Trains a vocabulary of BPE on a file of lines, and writes PREFIX.model and PREFIX.vocab; returns the former.

    Raises GPT2Error for a text that gives fewer pieces, UsageError for sizes that cannot be.
    """
    if vocab_size < 1 or not 0 < character_coverage <= 1:
        raise UsageError(
            f"vocab_size must be at least 1 and character_coverage above 0 and at most 1, not {vocab_size} and"
            f" {character_coverage}"
        )
    model = Path(f"{prefix}{SP_MODEL_SUFFIX}")
    if not prefix or prefix.endswith(os.sep):
        raise UsageError(f"sp_model_prefix must be the beginning of a file's name, not {prefix!r}")
    try:
        with creating_folder(model.parent), atomic_write_many(model.parent, last=model.name) as folder, _ctrl_c_ends():
            import_sentencepiece().SentencePieceTrainer.train(
                input=str(text),
                model_prefix=str(folder / model.stem),
                vocab_size=vocab_size,
                model_type="bpe",
                max_sentence_length=LONGEST_LINE,
                bos_id=-1,
                eos_id=-1,
                unk_piece=UNKNOWN_TOKEN,
                control_symbols=[END_OF_LINE, END_OF_TEXT],
                character_coverage=character_coverage,
                minloglevel=2,  # errors; they come as exceptions too
            )
    except RuntimeError as error:
        raise GPT2Error(
            f"no vocabulary of {vocab_size} could be made of {printable_name(text)}: {_reason(error)}"
        ) from error
    except OSError as error:
        raise GPT2Error(f"{model} cannot be written: {error.strerror or error}") from error
    return model


def _reason(error: RuntimeError) -> str:
    """What the package says, without the places in its code and what it says to programmers."""
    said = re.sub(r"^.*?\(\d+\) *\[.*?\] *", "", str(error).strip().split("\n")[0])
    return re.sub(r"^(Internal|INTERNAL|Not found|NOT_FOUND): *", "", said) or type(error).__name__


@contextlib.contextmanager
def _ctrl_c_ends() -> Iterator[None]:
    """The package computes for minutes without Python, which would look at Ctrl-C only then: the system does instead.

    What is half done lies in a folder that the next one removes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def encode(
    corpora: Sequence[str],
    vocabulary: Vocabulary,
    output: Path,
    begin: Callable[[str, Path], contextlib.AbstractContextManager[ByteProgress]],
) -> None:
    """Writes OUTPUT/train.npy, valid.npy and test.npy: of each file its lines, each with its end, and the end of text.

    begin: called with a split and its file, gives what is told how many bytes of how many are encoded.
    """
    files = {split: texts(corpora, split) for split in SPLITS}
    with creating_folder(output):
        for split, paths in files.items():
            path = output / IDS.format(split)
            with begin(split, path) as report, token_file.write(path, vocabulary) as writer:
                for batch in _encoded(paths, vocabulary, report):
                    writer.append(batch)
                if not writer.tokens:
                    raise GPT2Error(f"the {split} split holds no text")


def _encoded(paths: Sequence[Path], vocabulary: Vocabulary, report: ByteProgress) -> Iterator[Encoded]:
    """What `data.encode` makes of files, without the end of text that it puts before the first one."""
    end = pack_separator(vocabulary)
    with contextlib.closing(encode_files(paths, vocabulary, "utf-8", documents.PLAIN_CSV, None, report)) as batches:
        for batch in batches:
            yield batch._replace(ids=batch.ids.removeprefix(end))
            end = b""
