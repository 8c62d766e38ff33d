"""`facegpt serve` under requests that schemathesis makes up from the published schema: no status of 5xx."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from serve_client import data_url
from small_head import small_head
from talking_model import gray_image, talking_model

schemathesis = pytest.importorskip("schemathesis", reason="the schemathesis package is not installed")
pytest.importorskip("fastapi", reason="the fastapi package is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.specs.openapi import checks as openapi_checks  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from facegpt.commands import chat_picture, serve_faces  # noqa: E402
from facegpt.commands.serve_answers import Service  # noqa: E402
from facegpt.commands.serve_app import make_app  # noqa: E402
from facegpt.commands.serve_queue import ModelQueue  # noqa: E402
from facegpt.model.facegpt import FaceGPT  # noqa: E402

PICTURE = data_url(gray_image(8))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]
FEW = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "15")),  # more are for an evening
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaceGPT:
    return talking_model(small_head(), tmp_path_factory.mktemp("fuzz") / "llava")


@pytest.fixture
def app(model: FaceGPT) -> Iterator[Any]:
    """A server of its own for each test: schemathesis starts it and shuts it down."""
    service = Service("tiny", ModelQueue(model), serve_faces.FaceShelf(small_head()), max_new_tokens=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve_faces, "PICTURE_SIZE", 32)
        patch.setattr(chat_picture, "missing_landmarker", lambda: "nobody finds faces here")
        yield make_app(service, largest_body=100_000)
    service.close()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/faces", "/v1/faces/{file}", "/v1/models/{name}"]
)
def test_no_request_that_can_be_made_up_is_a_server_error(app: Any, path: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    face = (
        TestClient(app)
        .post("/v1/faces", json={"text": "Show me the face.", "max_tokens": 1})
        .json()["faces"][0]
    )
    link = face["png"].rpartition("/")[2]
    statuses: set[int] = set()

    @FEW
    @given(cases=st.data())
    def fuzz(cases: Any) -> None:
        case = cases.draw(next(iter(schema[path].values())).as_strategy())
        if isinstance(case.body, dict) and cases.draw(st.booleans()):  # hardly ever made up by chance
            known = {"model": "tiny", "image": PICTURE, "messages": [{"role": "user", "content": "Who?"}]}
            case.body |= {key: value for key, value in known.items() if key in case.body}
        if case.path_parameters and cases.draw(st.booleans()):
            case.path_parameters = {"file": link} if "file" in case.path_parameters else {"name": "tiny"}
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    fuzz()
    assert 200 in statuses


@FEW
@given(body=st.binary(max_size=300) | st.text('[{"messages:,0}]nul\\ude-1.', max_size=300).map(str.encode))
def test_no_bytes_are_a_server_error(app: Any, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/faces"):
        kind = {"Content-Type": "application/json"}
        reply = TestClient(app, raise_server_exceptions=False).post(path, content=body, headers=kind)
        assert 400 <= reply.status_code < 500 and reply.json()["error"]["message"]
