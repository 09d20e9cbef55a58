"""The number of code lines of src: no blank lines, no comments, no docstrings.

python tests/helpers/code_lines.py                    counts each package, and all of src
python tests/helpers/code_lines.py --before v0.1.0    compares with a commit; --files lists the files that differ
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Return the number of lines of a Python file that hold code. A statement over three lines counts as three."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def working_tree() -> dict[str, int]:
    """Return the code lines of the Python files of src that git tracks or would track."""
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard", "src")
    paths = [path for path in listed.split("\n") if path.endswith(".py") and (ROOT / path).exists()]
    return {path: code_lines((ROOT / path).read_text(encoding="utf-8")) for path in paths}


def commit(revision: str) -> dict[str, int]:
    """Return the code lines of the Python files of src in a commit."""
    paths = [path for path in _git("ls-tree", "-r", "--name-only", revision, "src").split("\n") if path.endswith(".py")]
    return {path: code_lines(_git("show", f"{revision}:{path}")) for path in paths}


def packages(files: dict[str, int]) -> Counter[str]:
    """Return the sum of each package: src/gpt2/NAME, or the first folder or file of src."""
    sums: Counter[str] = Counter()
    for path, lines in files.items():
        parts = PurePosixPath(path).parts[1:]
        sums["/".join(parts[:2]) if parts[0] == "gpt2" and len(parts) > 2 else parts[0]] += lines
    return sums


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", metavar="COMMIT", help="compare with this commit")
    parser.add_argument("--files", action="store_true", help="list files instead of packages")
    options = parser.parse_args()
    after = working_tree()
    before = commit(options.before) if options.before else after
    grouped = Counter if options.files else packages
    old, new = grouped(before), grouped(after)
    for name in sorted(old.keys() | new.keys()):
        if not (options.files and options.before and old[name] == new[name]):
            print(_row(name, old[name], new[name], compared=options.before))
    print(_row("all of src", sum(before.values()), sum(after.values()), compared=options.before))


def _row(name: str, before: int, after: int, compared: str | None) -> str:
    return f"{name:50} {before:6} {after:6} {after - before:+6}" if compared else f"{name:50} {after:6}"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip("\n")


if __name__ == "__main__":
    main()
