"""Fixtures that open the page of a server with the bundled model in the system's Chromium. Nothing is downloaded."""

import json
import shutil

import pytest
from pages import PROMPT, run_server, set_text

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def address():
    pytest.importorskip("fastapi")
    with run_server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, address):
    """Return a function that opens the page. After the test, no opened page may have logged an error."""
    contexts = []
    errors = []

    def open_in_new_context(url=address, text=PROMPT, settings=None, locale="en-US", **options):
        options = {"viewport": {"width": 1280, "height": 860}, "locale": locale, **options}
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        if settings is not None:
            stored = json.dumps(json.dumps(settings))
            page.add_init_script(f"localStorage['gpt2.settings'] ??= {stored}")
        page.goto(url)
        if text is not None:
            set_text(page, text)
        return page

    yield open_in_new_context
    for context in contexts:
        context.close()
    # Chromium itself logs requests that the server rejected or did not answer; the tests cause these on purpose.
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []


@pytest.fixture
def page(open_page):
    return open_page()
