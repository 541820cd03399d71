"""Who may drive the microscope."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from demo_service import assert_problem, demo_rig, serving

from autofocus.service.access import is_loopback


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(demo_rig(tmp_path_factory.mktemp("runs")), token="s3cret") as client:
        yield client


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "Basic s3cret", "Bearer", "s3cret"])
def test_a_token_is_required_when_there_is_one(guarded: httpx.Client, sent: str | None) -> None:
    headers = {"authorization": sent} if sent else {}

    for method, path in (("GET", "/microscope"), ("POST", "/stop"), ("GET", "/runs")):
        answer = guarded.request(method, path, headers=headers)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_token_opens_everything(guarded: httpx.Client) -> None:
    headers = {"authorization": "Bearer s3cret", "host": "microscope.lab.example"}

    assert guarded.get("/microscope", headers=headers).status_code == 200


def test_health_and_documentation_need_no_token(guarded: httpx.Client) -> None:
    for path in ("/health", "/docs", "/redoc", "/openapi.json"):
        assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"host": "rebound.example"},
        {"host": "rebound.example:8000"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
def test_a_web_page_from_elsewhere_may_not_drive_a_microscope_without_token(
    shared_client: httpx.Client, headers: dict[str, str]
) -> None:
    assert_problem(shared_client.post("/stop", headers=headers), 403, "foreign-page")


def test_our_own_pages_may(shared_client: httpx.Client) -> None:
    origin = str(shared_client.base_url).rstrip("/")

    assert shared_client.post("/stop", headers={"origin": origin}).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("localhost.evil.example", False),
    ],
)
def test_knows_what_can_only_mean_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
