"""The page in a real browser: what each action changes, and that nothing is fetched from outside."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import free_port

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("streamlit", reason="Streamlit is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
WAIT = 60_000  # ms; a busy machine may take long


@pytest.fixture(scope="module")
def url(trained_dataset: Path) -> Iterator[str]:
    """The page as `llmsrec explore` starts it."""
    port = free_port()
    command = [sys.executable, "-m", "llmsrec.cli", "explore", "--port", str(port)]
    process = subprocess.Popen([*command, "--artifacts", str(trained_dataset.parent)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the page ended"
            try:
                if httpx.get(f"{url}/_stcore/health").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(url: str, browser: Any) -> Iterator[Any]:
    """The page with the first shopper's history; it may only talk to its own server."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(WAIT)
    playwright.expect.set_options(timeout=WAIT)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    page.locator("li[draggable]").first.wait_for()
    yield page
    assert not [each for each in requests if not each.startswith((url, "data:", "blob:"))]
    page.close()


def history(page: Any) -> list[str]:
    return page.locator("li[draggable] .title").all_inner_texts()


def expect_history(page: Any, titles: list[str]) -> None:
    playwright.expect(page.locator("li[draggable] .title")).to_have_text(titles)


def test_a_dragged_item_changes_the_order_and_a_button_restores_it(page: Any) -> None:
    first, *rest = history(page)
    teacher = page.locator("section[data-system=teacher]")
    before = teacher.inner_text()
    rows = page.locator("li[draggable]")
    rows.nth(0).drag_to(rows.nth(len(rest)))
    expect_history(page, [*rest, first])
    assert page.locator("li.moved").count() == len(rest) + 1
    playwright.expect(teacher).not_to_have_text(before, use_inner_text=True)
    page.get_by_role("button", name="Original order").click()
    expect_history(page, [first, *rest])
    playwright.expect(teacher).to_have_text(before, use_inner_text=True)


def test_buttons_move_and_remove_an_item_without_a_mouse(page: Any) -> None:
    first, second, *rest = history(page)
    page.get_by_role("button", name=f"move {first} down", exact=True).press("Enter")
    expect_history(page, [second, first, *rest])
    page.get_by_role("button", name=f"remove {second}", exact=True).press("Enter")
    expect_history(page, [first, *rest])


def test_a_product_is_searched_and_added_to_an_empty_history(page: Any) -> None:
    title = history(page)[0]
    page.get_by_role("button", name="Clear").click()
    playwright.expect(page.get_by_text("Nothing was bought yet.")).to_be_visible()
    search = page.get_by_label("Search products by title")
    search.fill(title)
    search.press("Enter")
    page.get_by_role("button", name=re.compile(f"{re.escape(title)}$")).first.click()
    expect_history(page, [title])


def test_a_new_product_is_recommended_and_its_title_is_no_html(page: Any) -> None:
    title = f"{history(page)[-1]} <img src=x onerror=alert(1)>"
    page.get_by_label("Add a product that the shop does not have").fill(title)
    page.get_by_role("button", name="Add", exact=True).click()
    new = page.locator("section[data-system=content] li.new")
    playwright.expect(new).to_contain_text(title)
    assert not page.locator("img[src=x]").count()
    playwright.expect(page.get_by_text("Rank of the added product")).to_be_visible()
    page.get_by_role("button", name="Remove the added products").click()
    playwright.expect(new).to_have_count(0)


def test_an_unknown_shopper_gets_a_message(page: Any) -> None:
    shopper = page.get_by_label("or the shopper with this id")
    shopper.fill("nobody")
    shopper.press("Enter")
    page.get_by_role("button", name="Take", exact=True).click()
    playwright.expect(page.get_by_text("no test user 'nobody'")).to_be_visible()
