"""Swagger UI in a real browser that can reach nothing but this machine.

Needs Chromium and ``pip install -e ".[browser]"``. ``SWAGGER_PHOTOS=folder`` keeps photographs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra `browser`")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1200,1700",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


def test_an_operator_focuses_from_swagger_ui(browser, shared_client: httpx.Client) -> None:
    shared_client.post("/stage", json={"z_um": 33.7})
    browser.get(f"{shared_client.base_url}/docs")
    wait = WebDriverWait(browser, 60)

    operation = wait.until(lambda b: b.find_element(By.ID, "operations-autofocus-autofocus"))
    listed = {e.text for e in browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-path")}
    _photograph(browser, "operations")
    operation.click()
    _press(wait, operation, ".try-out__btn")
    _press(wait, operation, ".execute")
    answer = wait.until(lambda _: _text(operation, ".live-responses-table .highlight-code"))

    assert {path.replace("\u200b", "") for path in listed} >= {"/autofocus", "/stop", "/stage"}
    assert '"locked": true' in answer
    assert _text(operation, ".live-responses-table tbody .response-col_status").startswith("200")
    _assert_nothing_came_from_elsewhere(browser, str(shared_client.base_url))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", _table(operation))
    _photograph(browser, "locked")


def test_redoc_shows_without_internet(browser, shared_client: httpx.Client) -> None:
    browser.get(f"{shared_client.base_url}/redoc")

    heading = WebDriverWait(browser, 60).until(lambda b: b.find_element(By.TAG_NAME, "h1"))

    assert "reiqa-autofocus" in heading.text
    _assert_nothing_came_from_elsewhere(browser, str(shared_client.base_url))


def _press(wait: WebDriverWait, inside, selector: str) -> None:
    wait.until(lambda _: inside.find_elements(By.CSS_SELECTOR, selector))[0].click()


def _text(inside, selector: str) -> str:
    found = inside.find_elements(By.CSS_SELECTOR, selector)
    return found[0].text if found else ""


def _assert_nothing_came_from_elsewhere(browser, base_url: str) -> None:
    """Every request went to us, or the browser refused to send it because of our policy."""
    asked: dict[str, str] = {}
    refused: set[str] = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked[message["params"]["requestId"]] = message["params"]["request"]["url"]
        elif message["params"].get("blockedReason") == "csp":
            refused.add(message["params"]["requestId"])
    sent = [url for request, url in asked.items() if request not in refused]
    assert base_url + "/openapi.json" in sent
    assert [url for url in sent if url.startswith("http") and not url.startswith(base_url)] == []


def _table(operation):
    return operation.find_element(By.CSS_SELECTOR, ".live-responses-table")


def _photograph(browser, name: str) -> None:
    if folder := os.environ.get("SWAGGER_PHOTOS"):
        browser.save_screenshot(str(Path(folder) / f"swagger_{name}.png"))
