"""Helpers of the browser tests: a server with the page, and the actions of a user."""

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
def run_server(*flags: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `scripts/serve.py` with the bundled model. Yields its URL and its process."""
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--model_name", "shakespeare", "--port", str(port)]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr
    try:
        first_line = process.stderr.readline()
        url = re.search(r"http://127.0.0.1:\d+", first_line)
        assert url, first_line
        yield url[0], process
    finally:
        process.kill()
        process.communicate()


def set_text(page: Page, text: str) -> None:
    """Replace the whole text, as if the user pasted it."""
    page.focus("#textarea")
    page.keyboard.press("Control+A")
    if text:
        page.keyboard.insert_text(text)
    else:
        page.keyboard.press("Delete")
    assert page.input_value("#textarea") == text


def get_text(page: Page) -> str:
    return page.input_value("#textarea")


def get_selection(page: Page) -> Any:
    """Return the start and the end of the selection, and the whole text."""
    return page.evaluate("(a => [a.selectionStart, a.selectionEnd, a.value])(document.getElementById('textarea'))")


def wait_until(page: Page, expression: str, timeout: float = 60) -> None:
    """Wait until a JavaScript expression is true, for at most `timeout` seconds.

    Playwright's own wait_for_function compiles the expression in the page, which the page's content security policy
    forbids.
    """
    deadline = time.monotonic() + timeout
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression}: {page.evaluate('document.body.innerText')}"
        page.wait_for_timeout(20)


def wait_for_stream_end(page: Page) -> None:
    """Wait until no suggestion is being streamed."""
    wait_until(page, "document.getElementById('stop').hidden")


def continue_text(page: Page, key: str = "Tab") -> str:
    """Press the key, wait for the suggestion and return it."""
    page.press("#textarea", key)
    wait_until(page, "!document.getElementById('suggestion').hidden")
    wait_for_stream_end(page)
    start, end, text = get_selection(page)
    return text[start:end]
