"""The sentences that people read in src: docstrings, comments and messages, each with its file and line.

python tests/helpers/source_texts.py --seed 1 --count 60     draws docstrings and messages at random, for a reviewer
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MIN_MESSAGE_WORDS = 3  # a string of fewer words is a name, a key or a format


class SourceText(NamedTuple):
    """A text of the source code."""

    path: Path
    line: int
    kind: str  # docstring, comment or message
    text: str

    def __str__(self) -> str:
        """Return the text under its file and line."""
        return f"{self.path.relative_to(ROOT)}:{self.line} ({self.kind})\n{self.text}"


def source_files() -> list[Path]:
    """Return the Python files of src."""
    return sorted(path for path in SRC.rglob("*.py") if "egg-info" not in str(path))


def texts(path: Path) -> Iterator[SourceText]:
    """Yield all docstrings, comments and messages of a file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstrings = {id(node) for node in docstring_nodes(tree)}
    for node in docstring_nodes(tree):
        yield SourceText(path, node.lineno, "docstring", str(node.value))
    for line, text in message_strings(tree, docstrings):
        yield SourceText(path, line, "message", text)
    yield from comments(path, source)


def docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the docstrings' constants."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            statement = node.body[0]
            assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            yield statement.value


def message_strings(tree: ast.AST, excluded: set[int]) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string of several words, with {...} for the values in it."""
    inside: set[int] = set()  # parts of an f-string
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr) or id(node) in inside or id(node) in excluded:
            continue
        text = None
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{...}" for part in node.values]
            text = "".join(map(str, parts))
        if text is not None and len([word for word in text.split() if word.isalpha()]) >= MIN_MESSAGE_WORDS:
            yield node.lineno, text


def comments(path: Path, source: str) -> Iterator[SourceText]:
    """Yield the comments of a file; lines of a comment that follow each other are one."""
    block: list[str] = []
    start = 0
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if block and line != last + 1:
            yield SourceText(path, start, "comment", " ".join(block))
            block = []
        if not block:
            start = line
        block.append(token.string.lstrip("# "))
        last = line
    if block:
        yield SourceText(path, start, "comment", " ".join(block))


def draw(kind: str, count: int, seed: int) -> list[SourceText]:
    """Draw some of the texts of one kind."""
    found = [text for path in source_files() for text in texts(path) if text.kind == kind]
    return random.Random(seed).sample(found, count)


def main() -> None:
    """Print texts that were drawn at random."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=60, help="how many of each kind")
    arguments = parser.parse_args()
    for kind in ("docstring", "message"):
        for number, text in enumerate(draw(kind, arguments.count, arguments.seed), start=1):
            print(f"[{kind} {number}] {text}\n")


if __name__ == "__main__":
    main()
