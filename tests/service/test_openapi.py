"""The published description is true: its examples validate, and work on the demo."""

from __future__ import annotations

import re

import httpx
import pytest
from demo_service import wait_until

from autofocus.service import answers, problems, requests, scores


@pytest.fixture(scope="module")
def document(shared_client: httpx.Client) -> dict:
    return shared_client.get("/openapi.json").json()


def test_is_openapi_3_1(document: dict) -> None:
    assert document["openapi"].startswith("3.1")


def test_every_operation_says_what_it_is_for(document: dict) -> None:
    for path, operation in _operations(document):
        assert operation["summary"], path
        assert len(operation["description"]) > 40, path
        assert operation["tags"], path


def test_every_request_body_has_an_example_that_works_on_the_demo(
    document: dict, shared_client: httpx.Client
) -> None:
    tried = 0
    _label_two_stacks(shared_client)
    for method, path, operation in _methods(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is None:
            continue
        assert body["examples"], path
        for name, example in body["examples"].items():
            shared_client.post("/stage", json={"z_um": 12.0})
            filled = path.replace("{stack_id}", _newest_stack(shared_client))
            answer = shared_client.request(method, filled, json=example["value"])
            assert answer.is_success, f"{path} {name}: {answer.text}"
            tried += 1
            if answer.status_code == 202:
                _when_over(shared_client, answer.headers["location"])
    assert tried >= 16


def test_every_answer_has_an_example_that_fits_its_schema(document: dict) -> None:
    named = {
        schema["$ref"].rpartition("/")[2]
        for _, operation in _operations(document)
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        if "$ref" in (schema := content.get("schema", {}))
    }
    models = {model.__name__: model for model in answers.Answer.__subclasses__()}
    assert named >= {
        "RunOut",
        "ScoresOut",
        "RunList",
        "StackOut",
        "StackList",
        "JudgementOut",
        "HeadOut",
        "HeadList",
        "ActiveHeadOut",
        "PlanOut",
        "StageOut",
        "MicroscopeOut",
        "Problem",
    }
    for name in named:
        (example,) = document["components"]["schemas"][name]["examples"]
        model = models[name]
        spoken = model.model_validate(example).model_dump(mode="json", by_alias=True)
        assert set(example) <= set(spoken), name


def test_every_field_of_a_request_says_what_it_means() -> None:
    bodies = requests.Request.__subclasses__()
    bodies += [child for body in bodies for child in body.__subclasses__()]
    assert {requests.SearchBody, requests.StackBody, scores.ScoreForm} <= set(bodies)
    for body in set(bodies) - {requests.RoiBody}:
        for name, field in body.model_fields.items():
            assert field.description, f"{body.__name__}.{name}"


def test_errors_are_described_as_problems_and_nothing_else(document: dict) -> None:
    for path, operation in _operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/health":
                assert list(response["content"]) == [problems.MEDIA_TYPE], f"{path} {status}"
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_error_class_of_ours_is_in_the_table() -> None:
    from autofocus import errors
    from devices import errors as device_errors
    from models import errors as model_errors

    for module in (errors, device_errors, model_errors):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Exception):
                if value is errors.AutofocusError:
                    continue
                assert any(base in problems.TABLE for base in value.__mro__), value


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_pages_load_nothing_from_elsewhere(
    shared_client: httpx.Client, page: str
) -> None:
    html = shared_client.get(page).text

    references = re.findall(r"""(?:src|href)=["']([^"']+)""", html)
    assert references
    assert not [r for r in references if re.match(r"(?:https?:)?//", r)]
    assert "googleapis" not in html
    for reference in references:
        assert shared_client.get(reference).status_code == 200
    assert '"validatorUrl": null' in html or page == "/redoc"


def _label_two_stacks(client: httpx.Client) -> None:
    """What `POST /heads` is fitted on."""
    roi = {"x": 128, "y": 128, "width": 256, "height": 256}
    body = {"half_range_dof": 2.0, "step_dof": 1.0, "roi": roi}
    for _ in range(2):
        stack_id = client.post("/stacks", json=body).json()["stack_id"]
        z_um = client.get("/stage").json()["z_um"]
        assert client.put(f"/stacks/{stack_id}/label", json={"z_um": z_um}).is_success


def _when_over(client: httpx.Client, where: str) -> None:
    wait_until(
        lambda: client.get(where).json()["status"] not in ("running", "fitting"), timeout_s=240
    )


def _newest_stack(client: httpx.Client) -> str:
    return next((stack["stack_id"] for stack in client.get("/stacks").json()["stacks"]), "")


def _operations(document: dict) -> list[tuple[str, dict]]:
    return [(path, operation) for _, path, operation in _methods(document)]


def _methods(document: dict) -> list[tuple[str, str, dict]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
