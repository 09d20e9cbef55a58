"""The page of a server of the bundled model, in the system's Chromium; nothing is downloaded."""

import json
import shutil

import pytest
from pages import PROMPT, server, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def address():
    pytest.importorskip("fastapi")
    with server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, address):
    """Opens the page; in the end nothing may have gone wrong in any that was opened."""
    contexts, wrong = [], []

    def open_page(url=address, text=PROMPT, settings=None, locale="en-US", **options):
        options = {"viewport": {"width": 1280, "height": 860}, "locale": locale, **options}
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        if settings is not None:
            said = json.dumps(json.dumps(settings))
            page.add_init_script(f"localStorage['gpt2.settings'] ??= {said}")
        page.goto(url)
        if text is not None:
            write(page, text)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # Chromium itself says that a server was away, or that it refused.
    assert [line for line in wrong if not line.startswith("Failed to load resource")] == []


@pytest.fixture
def page(opened):
    return opened()
