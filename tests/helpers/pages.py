"""A server's page and what one does on it, for tests in the browser."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "ROMEO:\nThe night is dark"


@contextlib.contextmanager
def server(*flags: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of `scripts/serve.py` with the bundled model, and its process."""
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--model_name", "shakespeare", "--port", str(port)]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr
    try:
        said = process.stderr.readline()
        found = re.search(r"http://127.0.0.1:\d+", said)
        assert found, said
        yield found[0], process
    finally:
        process.kill()
        process.communicate()


def write(page: Page, text: str) -> None:
    """In place of all that is there, as if it were pasted."""
    page.focus("#textarea")
    page.keyboard.press("Control+A")
    if text:
        page.keyboard.insert_text(text)
    else:
        page.keyboard.press("Delete")
    assert page.input_value("#textarea") == text


def text_of(page: Page) -> str:
    return page.input_value("#textarea")


def selection(page: Page) -> Any:
    """Where it begins and ends, and the text."""
    return page.evaluate("(a => [a.selectionStart, a.selectionEnd, a.value])(document.getElementById('textarea'))")


def until(page: Page, expression: str, patience: float = 60) -> None:
    """Waits for JavaScript to be true. Playwright's own waiting compiles it in the page, which the policy forbids."""
    end = time.monotonic() + patience
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression}: {page.evaluate('document.body.innerText')}"
        page.wait_for_timeout(20)


def settle(page: Page) -> None:
    """Until nothing more is being written."""
    until(page, "document.getElementById('stop').hidden")


def go_on(page: Page, key: str = "Tab") -> str:
    """Presses the key, waits for the continuation, returns what is selected."""
    page.press("#textarea", key)
    until(page, "!document.getElementById('suggestion').hidden")
    settle(page)
    start, end, text = selection(page)
    return text[start:end]
